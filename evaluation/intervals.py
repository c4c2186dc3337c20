"""Measured values with 95 % intervals: what every number of an evaluation is stated with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)
_NORMAL_QUANTILE = 1.959964  # of 97.5 %

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A measured value with its 95 % interval; all NaN where no face has the label."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}}"

    @property
    def known(self) -> bool:
        """Return whether any face had the label."""
        return not math.isnan(self.value)

    @property
    def ends(self) -> dict[str, float]:
        """Return value and ends by what is added to the name of their columns: "", "_low", "_high"."""
        return {"": self.value, "_low": self.low, "_high": self.high}

    def text(self, *, scale: float = 1, digits: int = 2) -> str:
        """Return `7.25 (7.01 to 7.50)`, or a dash where there is no value."""
        value, low, high = (f"{scale * x:.{digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})" if self.known else "-"


UNKNOWN = Interval(math.nan, math.nan, math.nan)


def mean_interval(values: Values, *, seed: int = 0) -> Interval:
    """Return the mean of what is not NaN with its percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

    The same values always have the same interval, wherever they are stated.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return UNKNOWN
    return percentile_interval(float(values.mean()), resampled_means(values, np.random.default_rng(seed)))


def resampled_means(values: Values, rng: np.random.Generator) -> Values:
    """Return the mean of each of BOOTSTRAP_RESAMPLES resamples of values [N] without NaN."""
    return np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(BOOTSTRAP_RESAMPLES)])


def percentile_interval(value: float, resampled: Values) -> Interval:
    """Return the interval that holds 95 % of a statistic's values on resamples."""
    low, high = np.percentile(resampled, _PERCENTILES)
    return Interval(value, float(low), float(high))


def cautious_interval(value: float, resampled: Values, noise: Values) -> Interval:
    """Return the interval of what chance alone makes larger: an ECE, the largest minus the smallest of several.

    A resample adds chance to chance, so that the percentile interval of a true 0 never holds it. Hence the lower end
    takes off what chance alone may give: `noise` is the distance of each resample from the measured state, which
    bounds the error of `value` by the triangle inequality (as Tukey's range test does). The upper end is the
    percentile's. In simulations of either statistic it held the true value 95 times in a hundred or more.
    """
    low = value - float(np.percentile(noise, _PERCENTILES[1]))
    return Interval(value, max(0.0, low), max(value, float(np.percentile(resampled, _PERCENTILES[1]))))


def share_interval(hits: int, count: int) -> Interval:
    """Return Wilson's interval of hits / count (Brown, Cai and DasGupta 2001), for shares that may be of few faces.

    Where all of five are right, every resample is right as well, and a bootstrap would claim certainty.
    """
    if not count:
        return UNKNOWN
    share, z2 = hits / count, _NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _NORMAL_QUANTILE / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # Rounding alone could carry the ends past the share, 0 or 1.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))
