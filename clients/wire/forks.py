"""What a client holds open belongs to the process that opened it; after a fork the child opens its own.

Two processes that write to one socket, or to one shared memory region, get each other's answers without an error.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from clients.errors import WrongEventLoop

T = TypeVar("T")


class Forkable(Protocol):
    """Something that holds sockets, memory or locks."""

    def start_anew(self) -> None:
        """Forget what the parent holds, without a word to the server, and begin as when just made."""


_open: WeakSet[Forkable] = WeakSet()
_parents: list[Any] = []  # in a child, what would talk to the server, or wait for a dead thread's lock, when it goes


def start_anew_after_fork(holder: Forkable) -> None:
    """Have the holder start anew in every process forked from this one. Costs a call nothing."""
    _open.add(holder)


def leave_to_parent(*held: Any) -> None:
    """Keep alive, unused, what only the parent may close."""
    _parents.extend(held)


def _start_all_anew() -> None:
    for holder in list(_open):
        holder.start_anew()


if hasattr(os, "register_at_fork"):  # POSIX; elsewhere nothing forks
    os.register_at_fork(after_in_child=_start_all_anew)


class LoopBound(Generic[T]):
    """A connection of asyncio's: opened by the first call, of use to its event loop and its process alone."""

    def __init__(self, open_connection: Callable[[], T]) -> None:
        self._open_connection = open_connection
        self._loop: asyncio.AbstractEventLoop | None = None
        self.opened: T | None = None
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """In a forked child."""
        leave_to_parent(self.opened, self._loop)
        self.opened = self._loop = None

    def get(self) -> T:
        """Return the connection. Raises WrongEventLoop outside the loop that opened it."""
        loop = asyncio.get_running_loop()
        if self.opened is None:
            self.opened, self._loop = self._open_connection(), loop
        elif self._loop is not loop:
            raise WrongEventLoop("this client serves the event loop of its first call; open one in each loop")
        return self.opened
