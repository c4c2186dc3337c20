"""Intervals hold the true value as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.intervals import UNKNOWN, Interval, cautious_interval, mean_interval, share_interval


def test_a_value_is_written_with_its_interval_and_a_missing_one_as_a_dash() -> None:
    assert Interval(0.12345, 0.1, 0.15).text(scale=100, digits=1) == "12.3 (10.0 to 15.0)"
    assert UNKNOWN.text() == "-"


def test_a_mean_leaves_out_what_is_missing() -> None:
    interval = mean_interval(np.array([1.0, np.nan, 3.0]))
    assert interval.value == 2
    assert not mean_interval(np.array([np.nan])).known


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (5, 5, 0.5655, 1.0)]
)
def test_a_share_has_wilsons_interval(hits: int, count: int, low: float, high: float) -> None:
    """Values of Newcombe (1998), table I, method 3, and of all and none."""
    interval = share_interval(hits, count)
    assert interval.value == hits / count
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_a_share_of_nothing_is_unknown() -> None:
    assert not share_interval(0, 0).known


def test_a_distance_that_is_chance_alone_is_not_told_from_0_and_a_real_one_is() -> None:
    """The range of five means of 200 values, which is above 0 in every draw, also where all five are drawn alike."""
    rng = np.random.default_rng(0)

    def interval_of_range(true: np.ndarray) -> Interval:
        means = rng.normal(true, 1 / np.sqrt(200))
        resampled = rng.normal(means, 1 / np.sqrt(200), (500, 5))
        return cautious_interval(float(np.ptp(means)), np.ptp(resampled, axis=1), np.ptp(resampled - means, axis=1))

    alike = [interval_of_range(np.zeros(5)) for _ in range(200)]
    assert min(interval.value for interval in alike) > 0
    assert np.mean([interval.low == 0 for interval in alike]) > 0.93
    apart = [interval_of_range(np.array([0, 0, 0, 0, 0.5])) for _ in range(200)]
    assert np.mean([interval.low <= 0.5 <= interval.high for interval in apart]) > 0.93
    assert np.mean([interval.low > 0 for interval in apart]) > 0.9
    assert all(interval.low <= interval.value <= interval.high for interval in (*alike, *apart))
