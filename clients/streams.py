"""Work on many items at once with the results in order: bounded, and no further ahead of the reader than that.

Twice `in_flight` items are taken ahead of the result that is waited for, so that a slow one does not idle the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from clients.errors import InvalidInput

T = TypeVar("T")
Item = TypeVar("Item")


def chunked(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield lists of `size` items, the last one shorter."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def map_ordered(function: Callable[[Item], T], items: Iterable[Item], *, in_flight: int) -> Iterator[T]:
    """Map in order, with `in_flight` threads."""
    _check_in_flight(in_flight)
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(in_flight, thread_name_prefix="face-attributes") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


async def map_ordered_async(
    function: Callable[[Item], Awaitable[T]], items: Iterable[Item] | AsyncIterable[Item], *, in_flight: int
) -> AsyncGenerator[T, None]:
    """Map in order, with `in_flight` tasks of the running event loop at work."""
    _check_in_flight(in_flight)
    waiting: deque[asyncio.Task[T]] = deque()
    slots = asyncio.Semaphore(in_flight)

    async def run(item: Item) -> T:
        async with slots:
            return await function(item)

    try:
        async for item in _async_iterator(items):
            waiting.append(asyncio.create_task(run(item)))
            if len(waiting) >= 2 * in_flight:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _check_in_flight(in_flight: int) -> None:
    if in_flight < 1:
        raise InvalidInput(f"in_flight must be 1 or more, got {in_flight}")


async def _async_iterator(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
