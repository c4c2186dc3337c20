"""Files that every stage writes and reads: atomic replacement, and headers for a guarded server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    So a reader sees the old file or the whole new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: savers such as numpy and matplotlib choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_headers(path: Path) -> dict[str, str]:
    """Read lines "name: value", kept in a file because others can read a command line; names in lower case, as in gRPC.

    Raises ValueError, which shows no value, for a file that cannot be read or has another line.
    """
    try:
        lines = [line.partition(":") for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"headers file {path}: {error}") from error
    if not all(separator for _, separator, _ in lines):
        raise ValueError(f"headers file {path}: a line is not 'name: value'")
    return {name.strip().lower(): value.strip() for name, _, value in lines}
