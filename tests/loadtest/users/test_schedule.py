"""When requests leave and how many users there are."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest

from loadtest.users.schedule import SHAPES, arrival_times, spike, step


def times(rate: float, arrivals: str, count: int, seed: int = 0) -> np.ndarray:
    return np.array(list(islice(arrival_times(rate, arrivals, start_s=5.0, random_=random.Random(seed)), count)))


def test_constant_arrivals_are_evenly_spaced_from_a_random_phase_on() -> None:
    first, other = times(20, "constant", 100), times(20, "constant", 100, seed=1)
    np.testing.assert_allclose(np.diff(first), 0.05)
    assert 5 <= first[0] < 5.05
    assert first[0] != other[0]


def test_poisson_arrivals_have_the_rate_and_independent_gaps() -> None:
    gaps = np.diff(times(20, "poisson", 20_000))
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as of an exponential distribution
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.03


@pytest.mark.parametrize("peak", [1, 3, 5, 8, 100])
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_stays_between_one_user_and_the_peak_and_reaches_it(name: str, peak: int) -> None:
    users = [SHAPES[name](progress, peak) for progress in np.linspace(0, 0.999, 100)]
    assert min(users) >= 1
    assert max(users) == peak


def test_steps_are_equal_and_only_go_up() -> None:
    assert [step(progress, 10) for progress in (0, 0.19, 0.21, 0.5, 0.61, 0.99)] == [2, 2, 4, 6, 8, 10]


def test_a_spike_comes_at_once_and_goes_at_once() -> None:
    assert [spike(progress, 10) for progress in (0, 0.33, 0.34, 0.66, 0.67, 1)] == [2, 2, 10, 10, 2, 2]
