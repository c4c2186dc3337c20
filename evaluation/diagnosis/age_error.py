"""How far ages are off, and in which direction, by age."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from contract.samples import Labels
from contract.spec import Predictions
from evaluation.intervals import Interval, mean_interval

BIN_YEARS = 5  # fine enough to show a trend within the age groups, coarse enough for the heaping of guessed ages


@dataclass(frozen=True)
class AgeBin:
    """The faces whose labelled age is in [low, high)."""

    low: int
    high: int
    faces: int
    labelled: float  # mean, years
    mae_years: Interval
    bias_years: Interval  # mean of answer minus label: above 0 means taken for older


@dataclass(frozen=True)
class AgeError:
    """The error of the age head over all faces that have an age, and by bins of 5 years."""

    faces: int
    mae_years: Interval
    median_years: float  # of the absolute error
    p90_years: float  # nine faces in ten are closer
    bias_years: Interval
    bins: tuple[AgeBin, ...]  # by age, empty ones left out

    def to_frame(self) -> pd.DataFrame:
        """Return a row a bin."""
        return pd.DataFrame(
            {"low": b.low, "high": b.high, "faces": b.faces, "labelled_mean_years": b.labelled}
            | {f"mae_years{end}": value for end, value in b.mae_years.ends.items()}
            | {f"bias_years{end}": value for end, value in b.bias_years.ends.items()}
            for b in self.bins
        )


def age_error(predictions: Predictions, labels: Labels) -> AgeError | None:
    """Compare answered with labelled ages; None where no face has one."""
    known = ~np.isnan(labels.age)
    if not known.any():
        return None
    age = labels.age[known].astype(np.float64)
    error = predictions.age[known] - age
    bin_of = (age // BIN_YEARS).astype(np.int64)

    def of_bin(index: int) -> AgeBin:
        chosen, low = bin_of == index, int(index) * BIN_YEARS
        return AgeBin(
            low,
            low + BIN_YEARS,
            int(chosen.sum()),
            float(age[chosen].mean()),
            mean_interval(np.abs(error[chosen])),
            mean_interval(error[chosen]),
        )

    return AgeError(
        faces=len(age),
        mae_years=mean_interval(np.abs(error)),
        median_years=float(np.median(np.abs(error))),
        p90_years=float(np.percentile(np.abs(error), 90)),
        bias_years=mean_interval(error),
        bins=tuple(of_bin(index) for index in np.unique(bin_of)),
    )
