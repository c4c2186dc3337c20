"""Batches on the device that trains, the next ones on their way while it computes.

On a GPU a thread gathers into pinned memory and copies on a stream of its own, so neither the device nor the main
thread waits. A thread is enough, because gathering is a copy of memory outside Python's lock; worker processes would
copy every batch once more and be hit by Ctrl-C. On a CPU nothing runs ahead: it would take the cores that compute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from training.batches.dataset import Batch, Batches

Item = TypeVar("Item")
Made = TypeVar("Made")

BATCHES_AHEAD = 2  # one that is ready, one that is being copied


def batches_on(device: torch.device, batches: Batches, *, first: int = 0) -> Iterator[Batch]:
    """Yield the batches from number `first` on, this rank's part of each."""
    numbers = range(first, len(batches))
    if device.type == "cuda":
        yield from _copied_ahead(device, batches, numbers)
    else:
        yield from (batches.gather(number) for number in numbers)


def _copied_ahead(device: torch.device, batches: Batches, numbers: range) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def copy(number: int) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):  # also makes `device` this thread's device, for pinning
            batch = batches.gather(number, pinned=True).to(device)
            return batch, stream.record_event()

    for batch, copied in read_ahead(copy, numbers):
        computing = torch.cuda.current_stream(device)
        computing.wait_event(copied)
        for tensor in batch.tensors():
            tensor.record_stream(computing)  # or the next copy could take its memory before it has been read
        yield batch


def read_ahead(make: Callable[[Item], Made], items: Iterable[Item], *, ahead: int = BATCHES_AHEAD) -> Iterator[Made]:
    """Yield `make(item)` of each, in order, made by a thread up to `ahead` items early; raise its exceptions here."""
    left = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="read_ahead") as thread:
        waiting: deque[Future[Made]] = deque(thread.submit(make, item) for item in islice(left, ahead))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(thread.submit(make, item) for item in islice(left, 1))
            yield made
