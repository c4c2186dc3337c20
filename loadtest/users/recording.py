"""Every request of a run, from all of locust's workers, and what the server counted meanwhile.

locust itself keeps rounded histograms, and a master that quits does not wait for the answers its workers still expect,
which would leave out just the slowest. Here the workers answer for each request after their last one has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from clients.status import ModelStatistics
from loadtest.users.measurement import Request, Window, stages_between

DRAIN, REQUESTS = "drain", "requests"  # custom messages, to the workers and from them
PATIENCE_S = 60.0  # with workers, beyond the time that locust gives users to stop

Statistics = Callable[[], tuple[ModelStatistics, ...]]


def record_on_worker(environment: Environment) -> None:
    """Keep this process's requests; send them to the master once it has the users stopped and all is answered."""
    requests: list[Request] = []

    def drain(environment: Environment, **_: Any) -> None:
        environment.runner.stop()  # returns when every user has ended, then fires test_stop

    def send(environment: Environment, **_: Any) -> None:
        environment.runner.send_message(REQUESTS, list(requests))

    environment.events.test_start.add_listener(lambda **_: requests.clear())
    environment.events.request.add_listener(lambda context, **_: requests.append(context["request"]))
    environment.events.test_stop.add_listener(send)
    environment.runner.register_message(DRAIN, drain)


class Recording:
    """On the master, or where there are no workers: what has been recorded when `on_complete` is called."""

    def __init__(
        self, environment: Environment, *, statistics: Statistics, on_complete: Callable[[Recording], None]
    ) -> None:
        self._environment, self._statistics, self._on_complete = environment, statistics, on_complete
        self._warm_up: gevent.Greenlet | None = None
        self._clear()
        events = environment.events
        events.test_start.add_listener(self._start)
        events.request.add_listener(lambda context, **_: self.requests.append(context["request"]))
        events.test_stopping.add_listener(self._stopping)
        events.test_stop.add_listener(self._stop)
        if isinstance(environment.runner, MasterRunner):
            environment.runner.register_message(REQUESTS, self._take)

    @property
    def window(self) -> Window:
        return Window(self._start_s, self._stop_s)

    @property
    def workers(self) -> int:
        runner = self._environment.runner
        return int(runner.worker_count) if isinstance(runner, MasterRunner) else 0

    def _clear(self) -> None:
        self.requests: list[Any] = []
        self.stages = stages_between((), ())
        self._before: tuple[ModelStatistics, ...] = ()
        self._delivered = 0
        self._start_s = self._stop_s = 0.0

    def _start(self, **_: Any) -> None:
        self._clear()
        warm_up_s = self._environment.parsed_options.warm_up_s
        self._start_s = time.time() + warm_up_s
        self._warm_up = gevent.spawn_later(warm_up_s, self._warm)

    def _warm(self) -> None:
        self._before = self._statistics()

    def _stopping(self, **_: Any) -> None:
        if self._warm_up is None:
            return  # stopped before it started
        self._warm_up.kill()
        self._stop_s = time.time()
        if self._before:
            self.stages = stages_between(self._before, self._statistics())
        if isinstance(self._environment.runner, MasterRunner):
            self._drain()

    def _drain(self) -> None:
        """Have the workers stop their users and hand over their requests."""
        expected = self.workers
        self._environment.runner.send_message(DRAIN)
        with gevent.Timeout(self._environment.stop_timeout + PATIENCE_S, False):
            while self._delivered < expected:
                gevent.sleep(0.05)

    def _take(self, msg: Any, **_: Any) -> None:
        self.requests += msg.data
        self._delivered += 1

    def _stop(self, **_: Any) -> None:
        started, self._warm_up = self._warm_up is not None, None
        if started:
            self._on_complete(self)


def is_worker(environment: Environment) -> bool:
    """Return whether this process makes requests on behalf of a master."""
    return isinstance(environment.runner, WorkerRunner)
