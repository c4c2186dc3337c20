"""The faces a model got most wrong: what to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from contract.samples import Labels
from contract.spec import Predictions
from evaluation.diagnosis.calibration import CLASSIFIERS, Classifier, answered_class, class_names, class_probabilities
from evaluation.metrics import has_emotion

Head = Literal["age", "gender", "emotion"]
COUNT = 24  # a contact sheet of six by four


@dataclass(frozen=True)
class WorstFace:
    """One face, its label and the model's answer as text, and how wrong the answer is."""

    position: int  # among the samples
    labelled: str
    answered: str
    badness: float  # age: years off; gender, emotion: the probability of the wrong answer


def worst_faces(predictions: Predictions, labels: Labels, count: int = COUNT) -> dict[Head, list[WorstFace]]:
    """Return per head the faces furthest off, or wrong with the most confidence; heads without any are left out."""
    found: dict[Head, list[WorstFace]] = {"age": _largest_age_errors(predictions, labels, count)}
    for head in CLASSIFIERS:
        found[head] = _most_confident_errors(predictions, labels, head, count)
    return {head: faces for head, faces in found.items() if faces}


def to_frame(worst: dict[Head, list[WorstFace]], ids: Sequence[str]) -> pd.DataFrame:
    """Return a row a face and head; `ids` are the samples' own."""
    rows = [
        (head, ids[face.position], face.labelled, face.answered, face.badness)
        for head, faces in worst.items()
        for face in faces
    ]
    return pd.DataFrame(rows, columns=["head", "id", "labelled", "answered", "badness"])


def _largest_age_errors(predictions: Predictions, labels: Labels, count: int) -> list[WorstFace]:
    error = np.nan_to_num(np.abs(predictions.age - labels.age))
    return [
        WorstFace(int(i), f"{labels.age[i]:.0f} years", f"{predictions.age[i]:.0f} years", float(error[i]))
        for i in np.argsort(-error, kind="stable")[:count]
        if error[i] > 0
    ]


def _most_confident_errors(predictions: Predictions, labels: Labels, head: Classifier, count: int) -> list[WorstFace]:
    known = ~np.isnan(labels.gender) if head == "gender" else has_emotion(labels)
    probabilities, truth = class_probabilities(predictions, labels, head)
    answered, names = answered_class(probabilities, head), class_names(head)
    confidence = np.where(answered == truth, -1.0, probabilities.max(1))
    positions = np.flatnonzero(known)
    return [
        WorstFace(int(positions[i]), names[truth[i]], f"{names[answered[i]]} {confidence[i]:.0%}", float(confidence[i]))
        for i in np.argsort(-confidence, kind="stable")[:count]
        if confidence[i] >= 0
    ]
