"""The figures of the published run, to stand beside ours; it prints its decades as 0-10, 11-20, ..."""

from __future__ import annotations

from typing import NamedTuple


class PublishedRow(NamedTuple):
    samples: int
    age_mae_years: float
    gender_percent: float
    emotion_percent: float


# Of all 69,471 labelled FFHQ faces, the 58,331 it was trained on included.
BY_AGE_GROUP = {
    "0-9": PublishedRow(9750, 1.03, 93.01, 91.21),
    "10-19": PublishedRow(5974, 2.44, 98.68, 95.06),
    "20-29": PublishedRow(19991, 1.90, 99.70, 94.65),
    "30-39": PublishedRow(16440, 2.39, 99.84, 94.60),
    "40-49": PublishedRow(9071, 2.58, 99.82, 95.00),
    "50-59": PublishedRow(5409, 2.59, 99.76, 93.79),
    "60-69": PublishedRow(2460, 3.06, 99.55, 92.80),
    "70+": PublishedRow(376, 3.53, 99.20, 91.22),
    "all": PublishedRow(69471, 2.13, 98.72, 94.09),
}
BEST_EPOCH, BEST_VALIDATION_LOSS = 24, 4.2871
