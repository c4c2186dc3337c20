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
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from clients.calls import REGISTER_REGION, UNREGISTER_REGION, Call, RegionSlice, Reply
from clients.errors import (
    DeadlineExceeded,
    FaceAttributesError,
    InvalidInput,
    ModelNotFound,
    ServerUnavailable,
    SharedMemoryWarning,
)
from clients.wire.forks import start_anew_after_fork
from clients.wire.grpc import AsyncGrpcTransport, GrpcTransport
from clients.wire.http import AsyncHttpTransport, HttpTransport
from contract.spec import IMAGE, MAX_BATCH_SIZE, MODEL_NAME, Images

DIRECTORY = Path("/dev/shm")
SLOTS = 16  # requests in flight; one more than these carries its images itself
SLOT_BYTES = MAX_BATCH_SIZE * prod(IMAGE.dims)
BYTES = SLOTS * SLOT_BYTES


class SharedMemoryTransport:
    """A transport whose calls carry, instead of canonical images, their place in memory that the server sees too."""

    def __init__(self, transport: GrpcTransport | HttpTransport, authority: str) -> None:
        self._transport = transport
        self._shared = SharedMemory(authority)

    def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        with self._shared.noticing_loss():
            if not carries_images(call):
                return self._transport.send(call)
            for registering in self._shared.registration(call.deadline):
                with self._shared.outcome_of(registering):
                    self._transport.send(registering)
            with self._shared.lend(call) as lent:
                return self._transport.send(lent)

    def close(self) -> None:
        """Give up the region, then the connection."""
        for call in self._shared.release():
            with suppress(FaceAttributesError):  # a server that is gone has nothing to be told
                self._transport.send(call)
        self._transport.close()


class AsyncSharedMemoryTransport:
    """The same for asyncio."""

    def __init__(self, transport: AsyncGrpcTransport | AsyncHttpTransport, authority: str) -> None:
        self._transport = transport
        self._shared = SharedMemory(authority)

    async def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        with self._shared.noticing_loss():
            if not carries_images(call):
                return await self._transport.send(call)
            for registering in self._shared.registration(call.deadline):
                with self._shared.outcome_of(registering):
                    await self._transport.send(registering)
            with self._shared.lend(call) as lent:
                return await self._transport.send(lent)

    async def close(self) -> None:
        """Give up the region, then the connection."""
        for call in self._shared.release():
            with suppress(FaceAttributesError):  # a server that is gone has nothing to be told
                await self._transport.send(call)
        await self._transport.close()


def carries_images(call: Call) -> bool:
    """Tell whether a call's tensor may lie in shared memory: canonical images may, encoded ones differ in size."""
    return call.tensor is not None and call.tensor.spec == IMAGE


class SharedMemory:
    """One client's region: offered to the server with the first request, given up where the server cannot use it."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._region: Region | None = None
        self._refused = False
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Also in a forked child, which must not write where the parent's requests lie."""
        if self._region:
            self._region.leave()
        self._lock = threading.Lock()
        self._region = None
        self._registered = False

    def registration(self, deadline: float | None) -> Iterator[Call]:
        """Yield what the server has to be told before it reads the region, each to be sent within `outcome_of`."""
        if self._registered or self._refused:
            return
        for name in remove_dead_regions(self._authority):
            yield Call(UNREGISTER_REGION, {"name": name}, deadline=deadline)
        try:
            with self._lock:  # of threads whose first requests come together, one makes it
                self._region = self._region or Region(self._authority)
        except OSError as error:
            self._refuse(error)
        if not self._refused and (region := self._region):
            fields: dict[str, str | int] = {"name": region.name, "key": f"/{region.name}", "offset": 0}
            yield Call(REGISTER_REGION, fields | {"byte_size": BYTES}, deadline=deadline)

    @contextmanager
    def outcome_of(self, call: Call) -> Iterator[None]:
        """Note how a call of `registration` ends. A refusal is a warning; from then on requests carry their images."""
        try:
            yield
        except (ServerUnavailable, DeadlineExceeded):
            raise
        except FaceAttributesError as error:
            if call.operation is UNREGISTER_REGION and isinstance(error, InvalidInput):
                return  # a server that restarted has forgotten it by itself
            if "already in manager" not in str(error):  # else another thread was faster
                self._refuse(error)
                return
        if call.operation is REGISTER_REGION:
            self._registered = True

    def _refuse(self, error: Exception) -> None:
        self._refused = True
        warnings.warn(f"no shared memory with the server: {error}", SharedMemoryWarning, stacklevel=3)

    @contextmanager
    def lend(self, call: Call) -> Iterator[Call]:
        """Yield the call with its images in shared memory, or as it is where there is no room or no permission."""
        if self._region is None or not self._registered or call.tensor is None:
            yield call
            return
        with self._region.lend(call.tensor.array) as place:
            try:
                yield replace(call, tensor=replace(call.tensor, region=place))
            except (InvalidInput, ModelNotFound) as error:
                if place and place.name in str(error):  # unnoticed by us, the server has been restarted
                    raise ServerUnavailable(f"{error}; it has to be registered again") from error
                raise

    @contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Register again after a server was unavailable: what comes up at the address may be another one."""
        try:
            yield
        except ServerUnavailable:
            self._registered = False
            raise

    def release(self) -> list[Call]:
        """Remove the region's file; return what the server is still to be told."""
        if self._region is None:
            return []
        self._region.close()
        return [Call(UNREGISTER_REGION, {"name": self._region.name})] if self._registered else []


class Region:
    """A file of BYTES bytes in DIRECTORY, mapped and locked. Raises OSError where there is no room."""

    def __init__(self, authority: str) -> None:
        self.name = f"{region_prefix(authority)}{secrets.token_hex(8)}"
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
        """Copy images uint8 [N, 128, 128, 3] into a slot and yield it; None when all slots are taken."""
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

    def leave(self) -> None:
        """In a forked child: let go of it, which takes neither the file nor the lock from the parent."""
        self._unlock()

    def close(self) -> None:
        """Remove the file; its memory goes when the server and the last request let go of it."""
        (DIRECTORY / self.name).unlink(missing_ok=True)
        self._unlock()


def remove_dead_regions(authority: str) -> list[str]:
    """Remove the files that dead processes made for this server; return their names."""
    names = []
    for path in DIRECTORY.glob(f"{region_prefix(authority)}*"):
        with suppress(OSError), path.open("rb") as file:  # of another user, locked, or gone in the meantime
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            names.append(path.name)
    return names


def region_prefix(authority: str) -> str:
    """Return how the names of a server's regions begin: a region has to be unregistered where it was registered."""
    return f"{MODEL_NAME}-{zlib.crc32(authority.encode()):08x}-"
