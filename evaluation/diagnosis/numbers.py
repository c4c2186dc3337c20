"""Beyond the age-group table: calibration, error by age, confusions, subgroups and the worst faces of one model.

Numbers and text only; evaluation.diagnosis.drawn draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from contract.files import replacing
from contract.samples import ManifestError, Samples
from contract.spec import EMOTIONS, Predictions
from evaluation.diagnosis import worst
from evaluation.diagnosis.age_error import AgeError, age_error
from evaluation.diagnosis.calibration import CLASSIFIERS, Calibration, Classifier, calibrate
from evaluation.diagnosis.confusion import Confusion, confuse
from evaluation.diagnosis.subgroups import Subgroups, compare_subgroups
from evaluation.diagnosis.worst import Head, WorstFace

DIAGNOSIS_NAME = "diagnosis.md"
ANSWERS_NAME = "answers.csv"


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


def file_name(stem: str, dataset: str, suffix: str) -> str:
    """`calibration.csv`, or `calibration_utkface.csv` where several datasets share a folder."""
    return f"{stem}_{dataset}{suffix}" if dataset else f"{stem}{suffix}"


def write_tables(
    diagnosis: Diagnosis, predictions: Predictions, samples: Samples, folder: Path, dataset: str = ""
) -> None:
    """Write everything countable as CSV into `folder`, with what the model said of every face in answers.csv."""
    ids = samples.table["id"].tolist()
    for stem, table in {"answers": answers_to_frame(predictions, ids), **dict(_tables(diagnosis, ids))}.items():
        with replacing(folder / file_name(stem, dataset, ".csv")) as temporary:
            table.to_csv(temporary, index=False)


def _tables(diagnosis: Diagnosis, ids: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    if diagnosis.calibration:
        yield "calibration", pd.concat([found.to_frame() for found in diagnosis.calibration.values()])
    if diagnosis.age_error:
        yield "age_error", diagnosis.age_error.to_frame()
    for head, confusion in diagnosis.confusion.items():
        yield f"confusion_{head}", confusion.to_frame()
    if diagnosis.subgroups.rows:
        yield "subgroups", diagnosis.subgroups.to_frame()
    if diagnosis.subgroups.gaps:
        yield "gaps", diagnosis.subgroups.gaps_to_frame()
    if diagnosis.worst:
        yield "worst", worst.to_frame(diagnosis.worst, ids)


def answers_to_frame(predictions: Predictions, ids: list[str]) -> pd.DataFrame:
    """A row a face: id, age in years, probability of male, probability of each emotion."""
    columns = {"id": ids, "age": predictions.age, "gender": predictions.gender}
    return pd.DataFrame(columns | dict(zip(EMOTIONS, predictions.emotion.T, strict=True)))


def read_answers(path: Path, samples: Samples) -> Predictions:
    """What `write_tables` wrote of the same samples. Raises ManifestError where the faces are others."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(("age", "gender", *EMOTIONS), np.float32) | {"id": str})
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} holds no answers: {error}") from error
    if "id" not in table or table["id"].tolist() != samples.table["id"].tolist():
        raise ManifestError(f"{path} is of other faces than {samples.folder}; give the manifest, role and protocol")
    age, gender = (table[name].to_numpy(np.float32) for name in ("age", "gender"))
    return Predictions(age, gender, table[list(EMOTIONS)].to_numpy(np.float32))


def write_text(text: str, folder: Path) -> Path:
    with replacing(folder / DIAGNOSIS_NAME) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / DIAGNOSIS_NAME
