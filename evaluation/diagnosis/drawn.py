"""Draw and write where a model goes wrong, whatever gave its answers: the diagnosis.

    python -m evaluation.diagnosis.drawn --answers runs/served/answers.csv --manifest data/ffhq/manifest.csv \\
        --out runs/served

Reads the answers that clients.evaluate --diagnosis wrote. training.evaluate and convert.evaluate do all in one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from contract.samples import ManifestError, Protocol, Role, Samples, load_samples
from contract.spec import Predictions
from evaluation.diagnosis.contact_sheet import write_contact_sheet
from evaluation.diagnosis.numbers import Diagnosis, diagnose, file_name, read_answers, write_tables, write_text
from evaluation.diagnosis.plots import plot_age_error, plot_calibration, plot_confusion, plot_subgroups
from evaluation.diagnosis.text import to_markdown

WORST_TITLES = {
    "age": "age: furthest off",
    "gender": "gender: wrong with the highest confidence",
    "emotion": "emotion: wrong with the highest confidence",
}


@dataclass(frozen=True)
class DiagnosisConfig:
    """Draw the diagnosis of answers that are at hand."""

    answers: Path  # answers.csv
    manifest: Path
    out: Path  # a folder; the contact sheets in it show faces, so keep it out of what is published
    role: Role = "test"
    protocol: Protocol = "holdout"


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
    drawn = {name: _draw(*answers, folder, "" if one else name) for name, answers in evaluated.items()}
    sections = [
        to_markdown(found.diagnosis, found.pictures)
        if one
        else f"## {name}\n\n{to_markdown(found.diagnosis, found.pictures, level=3)}"
        for name, found in drawn.items()
    ]
    write_text("\n\n".join([f"# {title}", *sections]) + "\n", folder)
    return drawn


def _draw(predictions: Predictions, samples: Samples, folder: Path, dataset: str) -> Drawn:
    diagnosis = diagnose(predictions, samples)
    write_tables(diagnosis, predictions, samples, folder, dataset)
    pictures = [
        *_plots(diagnosis, predictions, samples, folder, dataset),
        *_sheets(diagnosis, samples, folder, dataset),
    ]
    return Drawn(diagnosis, {section: path.name for section, path in pictures})


def _plots(
    diagnosis: Diagnosis, predictions: Predictions, samples: Samples, folder: Path, dataset: str
) -> Iterator[tuple[str, Path]]:
    def out(stem: str) -> Path:
        return folder / file_name(stem, dataset, ".png")

    if diagnosis.calibration:
        yield "calibration", plot_calibration(list(diagnosis.calibration.values()), out("calibration"))
    if diagnosis.age_error:
        yield "age_error", plot_age_error(diagnosis.age_error, predictions, samples.labels, out("age_error"))
    if diagnosis.confusion:
        yield "confusion", plot_confusion(list(diagnosis.confusion.values()), out("confusion"))
    if diagnosis.subgroups.rows:
        yield "subgroups", plot_subgroups(diagnosis.subgroups, out("subgroups"))


def _sheets(diagnosis: Diagnosis, samples: Samples, folder: Path, dataset: str) -> Iterator[tuple[str, Path]]:
    for head, worst in diagnosis.worst.items():
        faces = samples.packed[samples.rows[[face.position for face in worst]]]
        ids = samples.table["id"]
        captions = [
            (f"labelled {face.labelled}", f"answered {face.answered}", _short(ids.iloc[face.position]))
            for face in worst
        ]
        title = f"{WORST_TITLES[head]}, {len(worst)} of {len(samples):,} faces"
        sheet = write_contact_sheet(faces, captions, title, folder / file_name(f"worst_{head}", dataset, ".png"))
        yield f"worst_{head}", sheet


def _short(face_id: str) -> str:
    """The end of a long id, which is what tells faces apart."""
    return face_id if len(face_id) <= 20 else f"...{face_id[-18:]}"


def main(config: DiagnosisConfig) -> None:
    samples = load_samples(config.manifest, config.role, config.protocol)
    answers = {config.manifest.parent.name: (read_answers(config.answers, samples), samples)}
    title = f"Diagnosis of {config.answers} on {config.manifest}, {config.role}, protocol {config.protocol}"
    write_diagnosis(answers, config.out, title=title)
    print(f"wrote {config.out}")


if __name__ == "__main__":
    try:
        main(tyro.cli(DiagnosisConfig))
    except ManifestError as error:
        sys.exit(f"error: {error}")
