"""Writes where a model goes wrong, whatever gave its answers: one text, tables as CSV, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from contract.files import ANY_NAME, replacing
from contract.samples import Samples
from contract.spec import EMOTIONS, Predictions
from evaluation.diagnosis import worst
from evaluation.diagnosis.contact_sheet import write_contact_sheet
from evaluation.diagnosis.diagnose import Diagnosis, diagnose
from evaluation.diagnosis.plots import plot_age_error, plot_calibration, plot_confusion, plot_subgroups
from evaluation.diagnosis.text import to_markdown

DIAGNOSIS_NAME = "diagnosis.md"
WORST_TITLES = {
    "age": "age: furthest off",
    "gender": "gender: wrong with the highest confidence",
    "emotion": "emotion: wrong with the highest confidence",
}


@dataclass(frozen=True)
class Drawn:
    """The diagnosis of one dataset, and the names of its pictures by section of evaluation.diagnosis.text."""

    diagnosis: Diagnosis
    pictures: Mapping[str, str]


def write_diagnosis(
    evaluated: Mapping[str, tuple[Predictions, Samples]], folder: Path, *, title: str
) -> dict[str, Drawn]:
    """Write pictures, CSVs and one diagnosis.md of one or several datasets by name.

    The name is in the file names where there are several. Contact sheets show the faces themselves.
    """
    one = len(evaluated) == 1
    drawn = {name: _write(*answers, folder, "" if one else f"_{name}") for name, answers in evaluated.items()}
    sections = [
        to_markdown(found.diagnosis, found.pictures)
        if one
        else f"## {name}\n\n{to_markdown(found.diagnosis, found.pictures, level=3)}"
        for name, found in drawn.items()
    ]
    with replacing(folder / DIAGNOSIS_NAME) as temporary:
        temporary.write_text("\n\n".join([f"# {title}", *sections]) + "\n", encoding="utf-8", errors=ANY_NAME)
    return drawn


def _write(predictions: Predictions, samples: Samples, folder: Path, suffix: str) -> Drawn:
    """Write the files of one dataset: `calibration.csv`, or with a suffix `calibration_utkface.csv`."""
    diagnosis = diagnose(predictions, samples)
    for stem, table in _tables(diagnosis, predictions, samples.table["id"].tolist()):
        with replacing(folder / f"{stem}{suffix}.csv") as temporary:
            table.to_csv(temporary, index=False, errors=ANY_NAME)
    pictures = [
        *_plots(diagnosis, predictions, samples, folder, suffix),
        *_sheets(diagnosis, samples, folder, suffix),
    ]
    return Drawn(diagnosis, {section: path.name for section, path in pictures})


def _tables(diagnosis: Diagnosis, predictions: Predictions, ids: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "answers", answers_to_frame(predictions, ids)
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
    """Return a row a face: id, age in years, probability of male, probability of each emotion."""
    columns = {"id": ids, "age": predictions.age, "gender": predictions.gender}
    return pd.DataFrame(columns | dict(zip(EMOTIONS, predictions.emotion.T, strict=True)))


def _plots(
    diagnosis: Diagnosis, predictions: Predictions, samples: Samples, folder: Path, suffix: str
) -> Iterator[tuple[str, Path]]:
    def out(stem: str) -> Path:
        return folder / f"{stem}{suffix}.png"

    if diagnosis.calibration:
        yield "calibration", plot_calibration(list(diagnosis.calibration.values()), out("calibration"))
    if diagnosis.age_error:
        yield "age_error", plot_age_error(diagnosis.age_error, predictions, samples.labels, out("age_error"))
    if diagnosis.confusion:
        yield "confusion", plot_confusion(list(diagnosis.confusion.values()), out("confusion"))
    if diagnosis.subgroups.rows:
        yield "subgroups", plot_subgroups(diagnosis.subgroups, out("subgroups"))


def _sheets(diagnosis: Diagnosis, samples: Samples, folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    for head, found in diagnosis.worst.items():
        faces = samples.packed[samples.rows[[face.position for face in found]]]
        ids = samples.table["id"]
        captions = [
            (f"labelled {face.labelled}", f"answered {face.answered}", _short(ids.iloc[face.position]))
            for face in found
        ]
        title = f"{WORST_TITLES[head]}, {len(found)} of {len(samples):,} faces"
        yield f"worst_{head}", write_contact_sheet(faces, captions, title, folder / f"worst_{head}{suffix}.png")


def _short(face_id: str) -> str:
    """Return the end of a long id, which is what tells faces apart."""
    return face_id if len(face_id) <= 20 else f"...{face_id[-18:]}"
