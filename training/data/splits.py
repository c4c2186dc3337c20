"""Splitting a dataset that has no published split: by a hash of each face's id or by given ids.

Either way adding faces moves none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from contract.files import ANY_NAME
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
        digest = hashlib.sha256(face_id.encode(errors=ANY_NAME)).digest()
        position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
        if position < self.holdout_fraction:
            return "holdout"
        return "selection" if position < self.holdout_fraction + self.selection_fraction else "train"

    def __str__(self) -> str:
        return f"{self.selection_fraction:.0%} selection, {self.holdout_fraction:.0%} holdout"


@dataclass(frozen=True)
class RangeSplit:
    """Says from a face's number which split it is in: that of the range around it, else train."""

    holdout: tuple[range, ...] = ()
    selection: tuple[range, ...] = ()

    def __post_init__(self) -> None:
        for one, other in combinations((*self.holdout, *self.selection), 2):
            if max(one.start, other.start) < min(one.stop, other.stop):
                raise DatasetError(f"the ids {_text(one)} and {_text(other)} overlap; give ranges that share no id")

    def __call__(self, face_id: str) -> str:
        number = int(face_id)
        if any(number in ids for ids in self.holdout):
            return "holdout"
        return "selection" if any(number in ids for ids in self.selection) else "train"

    def __str__(self) -> str:
        parts = (("holdout", self.holdout), ("selection", self.selection))
        return "; ".join(f"{name} {', '.join(map(_text, ranges))}" for name, ranges in parts if ranges)


def id_ranges(texts: Sequence[str]) -> tuple[range, ...]:
    """Read ranges like 4000-4499, both ends included, or single ids. Raises DatasetError for anything else."""
    return tuple(_range(text) for text in texts)


def _range(text: str) -> range:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise DatasetError(f"{text!r} is no range of ids; give the first and the last one, like 4000-4499")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def _text(ids: range) -> str:
    return f"{ids[0]}-{ids[-1]}" if len(ids) > 1 else f"{ids[0]}"
