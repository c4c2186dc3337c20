"""Whether a probability means what it says: of the answers given with 80 % confidence, 80 % should be right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.samples import Labels
from contract.spec import EMOTIONS, GENDERS, Predictions
from evaluation.intervals import BOOTSTRAP_RESAMPLES, Interval, Values, cautious_interval, mean_interval, share_interval
from evaluation.metrics import has_emotion

Classifier = Literal["gender", "emotion"]
CLASSIFIERS: tuple[Classifier, ...] = ("gender", "emotion")
BINS = 15  # as Guo et al. have it


@dataclass(frozen=True)
class ConfidenceBin:
    """The answers whose confidence is in (low, high]."""

    low: float
    high: float
    faces: int
    confidence: float  # their mean
    accuracy: Interval  # Wilson's, since some bins hold few faces


@dataclass(frozen=True)
class Calibration:
    """How well one head's confidence, the probability of the class it answers, agrees with its accuracy.

    `ece`, the expected calibration error, is the mean over faces of |accuracy - confidence| of the face's bin, with 15
    bins of equal width (Naeini, Cooper and Hauskrecht 2015; Guo, Pleiss, Sun and Weinberger 2017). Chance
    makes it larger (Kumar, Liang and Ma 2019), which its interval allows for.
    `brier` is the mean squared distance of the probabilities of all classes from the label (Brier 1950): 0 to 2, and
    best for the true probabilities only, while always answering the base rate has an ECE of 0 as well.
    """

    head: Classifier
    faces: int  # that have the label
    confidence: float  # mean
    accuracy: Interval
    ece: Interval
    brier: Interval
    bins: tuple[ConfidenceBin, ...]  # by confidence, empty ones left out

    def to_frame(self) -> pd.DataFrame:
        """Return a row a bin."""
        rows = [
            (self.head, b.low, b.high, b.faces, b.confidence, b.accuracy.value, b.accuracy.low, b.accuracy.high)
            for b in self.bins
        ]
        names = ["head", "low", "high", "faces", "confidence", "accuracy", "accuracy_low", "accuracy_high"]
        return pd.DataFrame(rows, columns=names)


def class_probabilities(predictions: Predictions, labels: Labels, head: Classifier) -> tuple[Values, NDArray[np.int64]]:
    """Return probabilities [n, classes] and labelled class [n] (emotion: its argmax) of the faces with the label."""
    if head == "gender":
        known = ~np.isnan(labels.gender)
        male = predictions.gender[known].astype(np.float64)
        return np.stack([1 - male, male], axis=1), (labels.gender[known] >= 0.5).astype(np.int64)
    known = has_emotion(labels)
    return predictions.emotion[known].astype(np.float64), labels.emotion[known].argmax(1)


def answered_class(probabilities: Values, head: Classifier) -> NDArray[np.int64]:
    """Return the class answered [n]; a gender of exactly 0.5 is male, as everywhere."""
    return (probabilities[:, 1] >= 0.5).astype(np.int64) if head == "gender" else probabilities.argmax(1)


def class_names(head: Classifier) -> tuple[str, ...]:
    """Return the names of a head's classes, in the order of their index."""
    return GENDERS if head == "gender" else EMOTIONS


def calibrate(
    predictions: Predictions, labels: Labels, head: Classifier, rng: np.random.Generator
) -> Calibration | None:
    """Compare confidence with accuracy; None where no face has the label."""
    probabilities, truth = class_probabilities(predictions, labels, head)
    if not len(truth):
        return None
    confidence = probabilities.max(1)
    correct = (answered_class(probabilities, head) == truth).astype(np.float64)
    bin_of = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1).astype(np.int64)
    squared_distance = ((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(1)
    return Calibration(
        head=head,
        faces=len(truth),
        confidence=float(confidence.mean()),
        accuracy=mean_interval(correct),
        ece=_expected_calibration_error(confidence - correct, bin_of, rng),
        brier=mean_interval(squared_distance),
        bins=tuple(_bin(i, confidence[bin_of == i], correct[bin_of == i]) for i in np.unique(bin_of)),
    )


def _bin(index: int, confidence: Values, correct: Values) -> ConfidenceBin:
    accuracy = share_interval(int(correct.sum()), len(correct))
    return ConfidenceBin(index / BINS, (index + 1) / BINS, len(correct), float(confidence.mean()), accuracy)


def _expected_calibration_error(excess: Values, bin_of: NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """Return the ECE of `excess` [n], confidence minus correctness: its sums by bin are the gaps times the faces."""

    def gaps(chosen: NDArray[np.int64] | slice) -> Values:
        return np.bincount(bin_of[chosen], excess[chosen], BINS) / len(excess)

    measured = gaps(slice(None))
    resampled = np.stack([gaps(rng.integers(0, len(excess), len(excess))) for _ in range(BOOTSTRAP_RESAMPLES)])
    error, noise = np.abs(resampled).sum(1), np.abs(resampled - measured).sum(1)
    return cautious_interval(float(np.abs(measured).sum()), error, noise)
