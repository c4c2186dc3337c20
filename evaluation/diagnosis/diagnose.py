"""Beyond the age-group table: calibration, error by age, confusions, subgroups and the worst faces of one model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contract.samples import Samples
from contract.spec import Predictions
from evaluation.diagnosis import worst
from evaluation.diagnosis.age_error import AgeError, age_error
from evaluation.diagnosis.calibration import CLASSIFIERS, Calibration, Classifier, calibrate
from evaluation.diagnosis.confusion import Confusion, confuse
from evaluation.diagnosis.subgroups import Subgroups, compare_subgroups
from evaluation.diagnosis.worst import Head, WorstFace


@dataclass(frozen=True)
class Diagnosis:
    """Where one model goes wrong on one set of faces; what its labels do not allow is left out."""

    faces: int
    calibration: dict[Classifier, Calibration]
    age_error: AgeError | None
    confusion: dict[Classifier, Confusion]
    subgroups: Subgroups
    worst: dict[Head, list[WorstFace]]


def diagnose(predictions: Predictions, samples: Samples) -> Diagnosis:
    """Compare predictions with the samples' labels. Raises ValueError where there is not one finite one a sample."""
    if len(predictions) != len(samples):
        raise ValueError(f"got {len(predictions)} predictions for {len(samples)} labelled faces")
    if broken := predictions.not_finite():
        raise ValueError(f"{broken} of {len(predictions)} predictions are not finite; check the model's precision")
    labels, rng = samples.labels, np.random.default_rng(0)
    calibrations = {head: calibrate(predictions, labels, head, rng) for head in CLASSIFIERS}
    confusions = {head: confuse(predictions, labels, head, rng) for head in CLASSIFIERS}
    return Diagnosis(
        faces=len(samples),
        calibration={head: found for head, found in calibrations.items() if found},
        age_error=age_error(predictions, labels),
        confusion={head: found for head, found in confusions.items() if found},
        subgroups=compare_subgroups(predictions, samples.table, rng),
        worst=worst.worst_faces(predictions, labels),
    )
