"""Images through system shared memory, for a client on the server's own host: requests then carry no pixels.

A region is a file in /dev/shm, divided into slots of one request each, that its owner keeps locked. The kernel drops
the lock with the process, however that ends, so whoever finds the file unlocked knows that it is garbage.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
import warnings
import weakref
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path

import numpy as np

from clients.errors import (
    DeadlineExceeded,
    FaceAttributesError,
    InvalidInput,
    ModelNotFound,
    ServerUnavailable,
    SharedMemoryWarning,
)
from clients.protocol import REGISTER_REGION, UNREGISTER_REGION, Call, Flow, RegionSlice
from contract.spec import IMAGE, MAX_BATCH_SIZE, MODEL_NAME, Images

DIRECTORY = Path("/dev/shm")
SLOTS = 16  # requests in flight; one more than these carries its images itself
SLOT_BYTES = MAX_BATCH_SIZE * prod(IMAGE.dims)
BYTES = SLOTS * SLOT_BYTES


class SharedMemory:
    """One client's region: offered to the server with the first request, given up where the server cannot use it."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._lock = threading.Lock()
        self._region: Region | None = None
        self._registered = False
        self._refused = False

    def register_flow(self) -> Flow[None]:
        """Once per connection. A refusal is a warning, after which requests carry their images themselves."""
        if self._registered or self._refused:
            return
        try:
            yield from self._unregister_dead_flow()
            yield from self._offer_flow(self._make_region())
        except (ServerUnavailable, DeadlineExceeded):
            raise
        except (FaceAttributesError, OSError) as error:
            self._refused = True
            warnings.warn(f"no shared memory with the server: {error}", SharedMemoryWarning, stacklevel=2)

    @contextmanager
    def lend(self, images: Images) -> Iterator[RegionSlice | None]:
        """The images' place in shared memory for the length of a request; None where there is none."""
        if self._region is None or not self._registered:
            yield None
            return
        with self._region.lend(images) as place:
            try:
                yield place
            except (InvalidInput, ModelNotFound) as error:
                if place and place.name in str(error):  # unnoticed by us, the server has been restarted
                    raise ServerUnavailable(f"{error}; it has to be registered again") from error
                raise

    def forget_registration(self) -> None:
        """The connection broke: what comes up at the address may be a new server."""
        self._registered = False

    def close_flow(self) -> Flow[None]:
        """Whether the server still hears of it or not, the region's file goes."""
        try:
            if self._region and self._registered:
                yield Call(UNREGISTER_REGION, {"name": self._region.name})
        finally:
            if self._region:
                self._region.close()

    def _make_region(self) -> Region:
        with self._lock:  # of threads whose first requests come together, one makes it
            self._region = self._region or Region(self._authority)
            return self._region

    def _unregister_dead_flow(self) -> Flow[None]:
        for name in remove_dead_regions(self._authority):
            with suppress(InvalidInput):  # a server that restarted has forgotten it by itself
                yield Call(UNREGISTER_REGION, {"name": name})

    def _offer_flow(self, region: Region) -> Flow[None]:
        try:
            yield Call(
                REGISTER_REGION, {"name": region.name, "key": f"/{region.name}", "offset": 0, "byte_size": BYTES}
            )
        except InvalidInput as error:
            if "already in manager" not in str(error):  # another thread was faster
                raise
        self._registered = True


class Region:
    """A file of BYTES bytes in DIRECTORY, mapped and locked. Raises OSError where there is no room."""

    def __init__(self, authority: str) -> None:
        self.name = f"{_prefix(authority)}{secrets.token_hex(8)}"
        self._free = deque(range(SLOTS))
        unfinished = DIRECTORY / f".{self.name}"
        descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        self._unlock = weakref.finalize(self, os.close, descriptor)  # unclosed, it is left for the next start to remove
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, BYTES)  # without it a full /dev/shm would kill the writer: SIGBUS
            self._memory = mmap.mmap(descriptor, BYTES)
        except OSError:
            unfinished.unlink()
            raise
        unfinished.rename(DIRECTORY / self.name)  # so only a locked file ever has a name that others look for

    @contextmanager
    def lend(self, images: Images) -> Iterator[RegionSlice | None]:
        """Copy images uint8 [N, 128, 128, 3] into a slot; None when all slots are taken."""
        try:
            slot = self._free.popleft()
        except IndexError:
            yield None
            return
        try:
            offset = slot * SLOT_BYTES
            np.frombuffer(self._memory, np.uint8, images.size, offset).reshape(images.shape)[:] = images
            yield RegionSlice(self.name, offset, images.nbytes)
        finally:
            self._free.append(slot)

    def close(self) -> None:
        """Remove the file; its memory goes when the server and the last request let go of it."""
        (DIRECTORY / self.name).unlink(missing_ok=True)
        self._unlock()


def remove_dead_regions(authority: str) -> list[str]:
    """Remove the files that processes which are no more made for this server; their names."""
    names = []
    for path in DIRECTORY.glob(f"{_prefix(authority)}*"):
        with suppress(OSError), path.open("rb") as file:  # of another user, locked, or gone in the meantime
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            names.append(path.name)
    return names


def _prefix(authority: str) -> str:
    """Of the server too, as a region has to be unregistered where it was registered."""
    return f"{MODEL_NAME}-{zlib.crc32(authority.encode()):08x}-"
