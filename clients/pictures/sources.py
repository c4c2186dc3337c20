"""The images that a command line names: files, folders, globs, and "-" for bytes on standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.files import files_below

STDIN = "-"
# Of a folder's files; a file named is read whatever it is.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".avif", ".heic", ".heif"}


@dataclass(frozen=True)
class Source:
    """One image and what it is called."""

    name: str
    image: Path | bytes


def sources(arguments: Sequence[str]) -> list[Source]:
    """Return every image named, in order; a name that matches nothing stays, to be reported when it is read."""
    return [source for argument in arguments for source in _expand(argument)]


def _expand(argument: str) -> Iterator[Source]:
    if argument == STDIN:
        yield Source("stdin", sys.stdin.buffer.read())
        return
    path = Path(argument)
    if path.is_dir():
        found = files_below(path, SUFFIXES)
    elif path.exists():
        found = [path]  # before globs, as a name may hold brackets
    else:
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        found = [Path(match) for match in matches] or [path]
    yield from (Source(str(file), file) for file in found)
