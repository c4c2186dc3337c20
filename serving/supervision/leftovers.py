"""What a server that was killed together with its program leaves behind, and its removal when the next one starts.

The names hold the program's process id, so that nothing of a living one is touched.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

_SHARED_MEMORY = Path("/dev/shm")


def shared_memory_prefix(grpc_port: int) -> str:
    """Return how the names of a server's shared memory begin."""
    return f"agegendernet_{os.getpid()}_{grpc_port}_"


def close_shared_memory(grpc_port: int) -> None:
    """Take a server's shared memory, in which faces lie, from others' sight: its backend does not heed the umask."""
    for path in _SHARED_MEMORY.glob(f"{shared_memory_prefix(grpc_port)}*"):
        with suppress(OSError):  # of a model that is unloaded at this moment
            path.chmod(0o600)


def temporary_folder(purpose: str) -> Path:
    """Make a folder that is removed by the next server's start if this program is killed."""
    return Path(mkdtemp(prefix=f"agegendernet-{purpose}-{os.getpid()}-"))


def remove_leftovers() -> None:
    """Remove shared memory and temporary folders of this user's dead programs."""
    for path in _of_the_dead():
        with suppress(OSError):  # another server that starts now may be faster
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _of_the_dead() -> Iterator[Path]:
    names = {
        _SHARED_MEMORY: re.compile(r"agegendernet_(\d+)_\d+_"),
        Path(gettempdir()): re.compile(r"agegendernet-(?:server|model)-(\d+)-"),
    }
    for folder, pattern in names.items():
        for path in folder.glob("agegendernet[_-]*"):
            found = pattern.match(path.name)
            if found and not Path("/proc", found[1]).exists():
                with suppress(OSError):
                    if path.lstat().st_uid == os.geteuid():
                        yield path
