"""Splitting a dataset that has no published split: by a hash of each face's id, so adding faces moves none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from training.data.faces import DatasetError


@dataclass(frozen=True)
class HashSplit:
    """Says from a face's id alone which split it is in. Raises DatasetError for fractions that leave no training."""

    selection_fraction: float = 0.05
    holdout_fraction: float = 0.15

    def __post_init__(self) -> None:
        fractions = (self.selection_fraction, self.holdout_fraction)
        if min(fractions) < 0 or sum(fractions) >= 1:
            raise DatasetError(
                f"selection and holdout fractions of {fractions} leave nothing to train on, or are negative; "
                "give two that sum to less than 1"
            )

    def __call__(self, face_id: str) -> str:
        position = int.from_bytes(hashlib.sha256(face_id.encode()).digest()[:8], "big") / 2**64  # uniform in [0, 1)
        if position < self.holdout_fraction:
            return "holdout"
        return "selection" if position < self.holdout_fraction + self.selection_fraction else "train"

    def __str__(self) -> str:
        return f"{self.selection_fraction:.0%} selection, {self.holdout_fraction:.0%} holdout"
