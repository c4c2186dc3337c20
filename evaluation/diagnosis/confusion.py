"""Which class is taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.samples import Labels
from contract.spec import Predictions
from evaluation.diagnosis.calibration import Classifier, answered_class, class_names, class_probabilities
from evaluation.intervals import BOOTSTRAP_RESAMPLES, Interval, percentile_interval, share_interval


@dataclass(frozen=True)
class Confusion:
    """How often each labelled class got each answer."""

    head: Classifier
    labelled: tuple[str, ...]  # rows: the classes that occur among the labels
    answered: tuple[str, ...]  # columns: all classes, since a model may answer one that no face has
    counts: NDArray[np.int64]  # [rows, columns]
    balanced_accuracy: Interval  # the mean of the recalls, each class weighing the same; bootstrap within each class

    @property
    def recall(self) -> dict[str, Interval]:
        """Return of each labelled class the share found, with Wilson's interval: some classes are a few faces."""
        rows = zip(self.labelled, self.counts, strict=True)
        return {name: share_interval(int(row[self.answered.index(name)]), int(row.sum())) for name, row in rows}

    @property
    def precision(self) -> dict[str, Interval]:
        """Return of each class's answers the share that was right, with Wilson's interval; unknown if never given."""
        found = {
            name: int(row[self.answered.index(name)]) for name, row in zip(self.labelled, self.counts, strict=True)
        }
        given = dict(zip(self.answered, self.counts.sum(0).tolist(), strict=True))
        return {name: share_interval(found[name], given[name]) for name in self.labelled}

    def to_frame(self) -> pd.DataFrame:
        """Return a row a labelled class, a column an answer, counts."""
        index = pd.Index(self.labelled, name="labelled")
        return pd.DataFrame(self.counts, index=index, columns=list(self.answered)).reset_index()


def confuse(predictions: Predictions, labels: Labels, head: Classifier, rng: np.random.Generator) -> Confusion | None:
    """Count answers by label; None where no face has the label."""
    probabilities, truth = class_probabilities(predictions, labels, head)
    if not len(truth):
        return None
    names = class_names(head)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (truth, answered_class(probabilities, head)), 1)
    present = np.flatnonzero(counts.sum(1))
    return Confusion(
        head,
        tuple(names[i] for i in present),
        names,
        counts[present],
        _balanced_accuracy(counts[present], present, rng),
    )


def _balanced_accuracy(counts: NDArray[np.int64], own: NDArray[np.int64], rng: np.random.Generator) -> Interval:
    """Return the mean recall of counts [rows, classes], where own [rows] is the column of each row's class."""
    found, faces = counts[np.arange(len(own)), own], counts.sum(1)
    # The number of right ones in a resample of a class is binomial, so nothing has to be drawn face by face.
    resampled = rng.binomial(faces, found / faces, (BOOTSTRAP_RESAMPLES, len(own))) / faces
    return percentile_interval(float((found / faces).mean()), resampled.mean(1))
