"""The server's log: appended to, so that it keeps what ended the server before, and rotated before it grows large."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from serving.errors import SetupError

MAX_BYTES = 16 << 20  # then it becomes NAME.1, which replaces the one before


def open_log(path: Path) -> BinaryIO:
    """Open for appending and mark the start with a line; a new file is its owner's alone. Raises SetupError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rotate(path)
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise SetupError(f"the log {path} cannot be written ({error.strerror}); name another with --log") from error
    file.write(f"--- started {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
    file.flush()
    return file


def rotate(path: Path) -> None:
    """Copy a log that is large to NAME.1 and empty it, since the server keeps writing to the file that it was given.

    Lines written between the copy and the emptying are lost. Raises OSError.
    """
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        shutil.copy2(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)


def reason_in(path: Path) -> str:
    """Return the server's own words since it was started last: its first error line, else its last line."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_BYTES))
        lines = file.read().decode(errors="replace").rpartition("--- started ")[2].splitlines()[1:]
    errors = [line.partition("] ")[2].strip(' "') for line in lines if re.match(r"E\d{4} ", line)]
    errors = [error for error in errors if "cuda" not in error.lower()]  # said by every start without a GPU
    first = (errors or lines[-1:] or ["it said nothing"])[0].replace("\\n", " ")  # the others follow from it
    return f"{' '.join(first.split())} (all of it: {path})"
