"""When requests leave and how many users there are: plain arithmetic, which locust is told the results of."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Literal, get_args

Arrivals = Literal["constant", "poisson"]
ARRIVALS: tuple[str, ...] = get_args(Arrivals)

STEPS = 5  # enough to see where latency leaves the floor
SPIKE_RATIO = 5  # peak over the load before and after

UsersAt = Callable[[float, int], int]


def arrival_times(rate_per_s: float, arrivals: Arrivals, *, start_s: float, random_: random.Random) -> Iterator[float]:
    """Yield without end when each request should leave; the phase is random, so that users do not tick together.

    "constant" spaces them evenly, "poisson" as independent people would come. Poisson processes of several users add
    up to one of the summed rate.
    """
    due_s = start_s + random_.random() / rate_per_s
    while True:
        yield due_s
        due_s += random_.expovariate(rate_per_s) if arrivals == "poisson" else 1 / rate_per_s


def step(progress: float, peak: int) -> int:
    """Return the users after this fraction of the run: equal steps up to the peak."""
    steps = min(STEPS, peak)
    return peak * (int(progress * steps) + 1) // steps


def spike(progress: float, peak: int) -> int:
    """Return the users after this fraction of the run: a low load, in the middle third the peak at once, and back."""
    return peak if 1 / 3 <= progress < 2 / 3 else max(1, peak // SPIKE_RATIO)


SHAPES: dict[str, UsersAt] = {"step": step, "spike": spike}
