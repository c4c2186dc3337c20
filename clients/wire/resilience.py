"""When a call is tried again, and when it is not even tried."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tenacity import RetryCallState, retry_if_exception_type, stop_before_delay, wait_random_exponential

from clients.errors import CircuitOpen, DeadlineExceeded, ServerBusy, ServerUnavailable
from clients.wire.forks import start_anew_after_fork

# Full jitter, so that clients spread out.
_WAIT = wait_random_exponential(multiplier=0.05, max=2.0)
_WAIT_WHILE_BUSY = wait_random_exponential(multiplier=1.0, max=8.0, min=0.25)  # haste would make it busier

logger = logging.getLogger("clients")


def retry_options(retry_for_s: float) -> dict[str, Any]:
    """Return options of tenacity's Retrying and AsyncRetrying."""
    return {
        "retry": retry_if_exception_type((ServerUnavailable, ServerBusy)),
        "wait": _wait_s,
        "stop": stop_before_delay(retry_for_s),
        "before_sleep": _log,
        "reraise": True,
    }


def _wait_s(state: RetryCallState) -> float:
    busy = state.outcome is not None and isinstance(state.outcome.exception(), ServerBusy)
    return (_WAIT_WHILE_BUSY if busy else _WAIT)(state)


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.info("%s; trying again in %.2f s (attempt %d)", error, state.upcoming_sleep, state.attempt_number)


class Circuit:
    """Fails calls at once while a server is gone, letting one through every `reset_s` to find out whether it is back.

    Opens after `failures_to_open` calls in a row that ended, retries included, in ServerUnavailable or
    DeadlineExceeded. Written here because the libraries looked at let every waiting call through at the trial, count
    a cancelled call as a success, or have different interfaces for threads and asyncio.
    """

    def __init__(
        self, *, failures_to_open: int = 5, reset_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures_to_open = failures_to_open
        self._reset_s = reset_s
        self._clock = clock
        self._lock = threading.Lock()
        start_anew_after_fork(self)
        self._failures = 0
        self._next_trial = 0.0

    def start_anew(self) -> None:
        """In a forked child: another lock, as a thread of the parent's may have held this one."""
        self._lock = threading.Lock()

    @contextmanager
    def guard(self, url: str) -> Iterator[None]:
        """Surround one call and count how it ends. Raises CircuitOpen instead of entering."""
        self._admit(url)
        try:
            yield
        except (ServerUnavailable, DeadlineExceeded):
            self._count(failures=self._failures + 1)
            raise
        except Exception:  # an answer, though not the one wished for; a cancelled call, not an Exception, says nothing
            self._count(failures=0)
            raise
        self._count(failures=0)

    def _admit(self, url: str) -> None:
        with self._lock:
            if self._failures < self._failures_to_open:
                return
            wait_s = self._next_trial - self._clock()
            if wait_s > 0:
                raise CircuitOpen(f"{url}: unavailable {self._failures} times in a row; next trial in {wait_s:.1f} s")
            self._next_trial = self._clock() + self._reset_s  # this call is the trial, the others go on failing

    def _count(self, *, failures: int) -> None:
        with self._lock:
            self._failures = failures
            self._next_trial = self._clock() + self._reset_s
