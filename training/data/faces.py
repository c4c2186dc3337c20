"""What a dataset's reader hands on: the faces it found, and the ones it had to leave out with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contract.program import UserError
from contract.samples import Protocol
from contract.spec import EMOTIONS

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_AGE_YEARS = 120  # older than anyone has been, bar one
NO_EMOTION = (math.nan,) * len(EMOTIONS)


class DatasetError(UserError, RuntimeError):
    """No dataset can be made of what was given; the message names the cause and the remedy."""


@dataclass(frozen=True)
class LabelledFace:
    """One face of a dataset; a label that the dataset lacks is NaN, never zero."""

    id: str  # unique in its dataset
    image: Path | None  # None: only the labels are at hand
    split: str  # one of contract.samples.PARTS
    age: float = math.nan  # years
    gender: float = math.nan  # 0 = female, 1 = male
    emotion: tuple[float, ...] = NO_EMOTION  # sums to 1
    extra: Mapping[str, str] = field(default_factory=dict)  # further columns of the manifest


@dataclass(frozen=True)
class Rejection:
    """One face or file that is left out: `reason` is what is counted, `detail` what a person looks for."""

    id: str
    path: Path | None
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class LabelledFaces:
    """A whole dataset as its reader found it."""

    title: str
    faces: Sequence[LabelledFace]
    rejections: Sequence[Rejection]
    notes: Sequence[str]  # sentences for the dataset card: how it was split, where its labels come from
    protocols: tuple[Protocol, ...] = ("holdout",)
