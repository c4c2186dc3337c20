"""Files: replaced in one step, so that a reader never sees a part, and found, linked folders included."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ANY_NAME: Final = "surrogateescape"  # for text that holds files' names, which may be other than UTF-8: byte for byte


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: savers such as numpy and matplotlib choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder and of all below it whose suffix, in lower case, is one of `suffixes`, sorted.

    Links to folders are followed, each folder once. Hidden files and folders are left out. Raises OSError for a folder
    that cannot be read, which is not the same as an empty one.
    """
    found, seen = [], set()

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(parent)) in seen:  # a link to where we come from
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in suffixes)
