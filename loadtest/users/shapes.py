"""Load shapes for `--shape`: locust asks one every second how many users there should be.

Users are the load in either loop: closed, each keeps one request in flight; open, each brings `--rate` requests/s.
"""

from __future__ import annotations

from locust import LoadTestShape

from loadtest.users.schedule import SHAPES


class ScheduledShape(LoadTestShape):
    """One of `loadtest.users.schedule.SHAPES`, with `--users` at its peak, over the whole of `--run-time`."""

    abstract = True  # locust would otherwise apply any shape that its locustfile can see
    use_common_options = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._users_at = SHAPES[name]

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        progress = self.get_run_time() / options.run_time
        if progress >= 1:
            return None
        return self._users_at(progress, options.num_users), float(options.num_users)  # all of a step's users at once
