"""All-Age-Faces -> a dataset folder: age and gender, mostly of East Asian people; no emotion.

python -m training.data.aaf --images data/aaf --out data/packed/aaf

What is special about this dataset is here: a name like 00000A02 is a number and an age, and the
number tells the gender.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import tyro

from contract import program
from contract.files import files_below
from training.data.faces import IMAGE_SUFFIXES, MAX_AGE_YEARS, DatasetError, LabelledFace, LabelledFaces, Rejection
from training.data.packing.pack import STOPPED, Duplicates, pack
from training.data.splits import HashSplit

LAST_FEMALE_NUMBER = 7_380  # the set's own order: women first, then men
_NAME = re.compile(r"(?P<number>\d{5})A(?P<age>\d{2,3})")


@dataclass(frozen=True)
class AafConfig:
    """Make a dataset folder of All-Age-Faces. A run that was stopped continues when started again."""

    images: Path  # holds 00000A02.jpg ..., flat or in any folders
    out: Path  # the dataset folder to make
    workers: int = os.cpu_count() or 1  # decoding is all there is to do, and scales with the cores
    exclude_duplicates_of: tuple[Path, ...] = ()  # manifests of datasets whose pictures must not occur in this one too
    selection_fraction: float = 0.05  # the names tell no split
    holdout_fraction: float = 0.15


def main(config: AafConfig) -> str:
    """Make the folder that `config` describes and return its card. Raises DatasetError, ManifestError, OSError."""
    drop = Duplicates(within=True, of_manifests=config.exclude_duplicates_of)
    return pack(collect(config), config.out, workers=config.workers, drop=drop)


def collect(config: AafConfig) -> LabelledFaces:
    """Find the pictures and read their names."""
    split = HashSplit(config.selection_fraction, config.holdout_fraction)
    faces: dict[str, LabelledFace] = {}
    rejections = []
    for image in _images(config.images):
        id_ = image.stem
        name = _NAME.fullmatch(id_)
        if name is None or int(name["age"]) > MAX_AGE_YEARS:
            rejections.append(Rejection(id_, image, "malformed name", "expected a number of five digits, A and an age"))
        elif id_ in faces:
            rejections.append(Rejection(id_, image, "repeated name", f"of {faces[id_].image}"))
        else:
            gender = float(int(name["number"]) > LAST_FEMALE_NUMBER)
            faces[id_] = LabelledFace(id_, image, split(id_), float(name["age"]), gender)
    notes = (
        f"Split by a hash of the id ({split}).",
        f"The gender is in the number: up to {LAST_FEMALE_NUMBER:05d} female, above male. Most faces are East Asian.",
        "Of equal pictures one stays, the most held out; with different labels, none.",
    )
    return LabelledFaces("All-Age-Faces", list(faces.values()), rejections, notes)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; pass the one that holds All-Age-Faces' pictures")
    return files_below(folder.resolve(), IMAGE_SUFFIXES)


if __name__ == "__main__":
    program.run(lambda: print(main(tyro.cli(AafConfig))), stopped=STOPPED)
