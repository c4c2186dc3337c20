"""UTKFace -> a dataset folder: age, gender and, for subgroup reports, race; no emotion.

python -m training.data.utkface --images data/utkface --out data/packed/utkface

What is special about this dataset is here: labels are in the file names (AGE_GENDER_RACE_DATE), gender 0 is male, a few
names lack a field, and hundreds of pictures occur twice, half of them with another age or gender.
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

RACES = ("white", "black", "asian", "indian", "other")  # index = the name's third field
# The date is not a label: whatever follows its first digit (a space, "jpg") spoils nothing.
_NAME = re.compile(r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d.*")


@dataclass(frozen=True)
class UtkFaceConfig:
    """Make a dataset folder of UTKFace. A run that was stopped continues when started again."""

    images: Path  # holds 1_0_2_20161219140530307.jpg ..., flat or in any folders
    out: Path  # the dataset folder to make
    workers: int = os.cpu_count() or 1  # decoding is all there is to do, and scales with the cores
    exclude_duplicates_of: tuple[Path, ...] = ()  # manifests of datasets whose pictures must not occur in this one too
    selection_fraction: float = 0.05  # the set has no published split
    holdout_fraction: float = 0.15


def main(config: UtkFaceConfig) -> str:
    """Make the folder that `config` describes and return its card. Raises DatasetError, ManifestError, OSError."""
    drop = Duplicates(within=True, of_manifests=config.exclude_duplicates_of)
    return pack(collect(config), config.out, workers=config.workers, drop=drop)


def collect(config: UtkFaceConfig) -> LabelledFaces:
    """Find the pictures and read their names."""
    split = HashSplit(config.selection_fraction, config.holdout_fraction)
    faces: dict[str, LabelledFace] = {}
    rejections = []
    for image in _images(config.images):
        # Without every suffix (the aligned pictures are called .jpg.chip.jpg): all forms of a picture are split alike.
        id_ = image.name.split(".")[0].strip()
        name = _NAME.fullmatch(id_)
        if name is None or int(name["age"]) > MAX_AGE_YEARS:
            rejections.append(Rejection(id_, image, "malformed name", "expected AGE_GENDER_RACE_DATE"))
        elif id_ in faces:
            rejections.append(Rejection(id_, image, "repeated name", f"of {faces[id_].image}"))
        else:
            gender = 1.0 - int(name["gender"])  # theirs: 0 = male
            race = {"race": RACES[int(name["race"])]}
            faces[id_] = LabelledFace(id_, image, split(id_), float(name["age"]), gender, extra=race)
    notes = (
        f"Split by a hash of the id ({split}).",
        "Labels were estimated by a model (DEX) and checked by a person; race is for reports by subgroup alone.",
        "Of equal pictures one stays, the most held out; with different labels, none.",
    )
    return LabelledFaces("UTKFace", list(faces.values()), rejections, notes)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; pass the one that holds UTKFace's pictures")
    return files_below(folder.resolve(), IMAGE_SUFFIXES)


if __name__ == "__main__":
    program.run(lambda: print(main(tyro.cli(UtkFaceConfig))), stopped=STOPPED)
