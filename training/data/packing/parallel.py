"""Work spread over processes that leave nothing behind, whether the program ends, is interrupted or is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_in_processes(function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int) -> Iterator[Result]:
    """Yield `function(task)` of each task, in order; an early end drops the tasks that have not begun.

    One worker (or one task) stays in this process. Raises what `function` raises, BrokenProcessPool where a worker was
    killed.
    """
    if min(workers, len(tasks)) <= 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("forkserver")  # not fork: the progress bar has a thread
    # What takes a program long to import is imported once, by the fork server, rather than by every worker.
    context.set_forkserver_preload([function.__module__, "pandas", "tyro"])
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, tasks)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A pool's workers wait for tasks forever when their parent is killed outright.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
