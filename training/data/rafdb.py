"""RAF-DB (basic emotions) -> a dataset folder: one emotion a face, in colour; no age, no gender, never contempt.

python -m training.data.rafdb --images data/rafdb --out data/packed/rafdb

What is special about this dataset is here: emotions are folders by number, train and test are published, and what a
model is selected on is taken out of train.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from contract import program
from contract.spec import EMOTIONS
from training.data.faces import IMAGE_SUFFIXES, DatasetError, LabelledFace, LabelledFaces, Rejection
from training.data.packing.pack import STOPPED, Duplicates, pack
from training.data.splits import HashSplit

# Of the published numbers the contract's names; contempt is none of the set's classes.
_EMOTIONS = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happiness",
    "5": "sadness",
    "6": "anger",
    "7": "neutral",
}
_FOLDERS = ("train", "test")


@dataclass(frozen=True)
class RafDbConfig:
    """Make a dataset folder of RAF-DB. A run that was stopped continues when started again."""

    images: Path  # holds train/1/train_00006_aligned.jpg ... and test likewise, or is the parent of rafdb
    out: Path  # the dataset folder to make
    workers: int = os.cpu_count() or 1  # decoding is all there is to do, and scales with the cores
    exclude_duplicates_of: tuple[Path, ...] = ()  # manifests of datasets whose pictures must not occur in this one too
    selection_fraction: float = 0.05  # of train: the set publishes no validation


def main(config: RafDbConfig) -> str:
    """Make the folder that `config` describes and return its card. Raises DatasetError, ManifestError, OSError."""
    drop = Duplicates(within=True, keep_whole="holdout", of_manifests=config.exclude_duplicates_of)
    return pack(collect(config), config.out, workers=config.workers, drop=drop)


def collect(config: RafDbConfig) -> LabelledFaces:
    """Find the pictures; their labels and the published split are their folders' names."""
    split = HashSplit(config.selection_fraction, holdout_fraction=0)
    root = next((place for place in (config.images, config.images / "rafdb") if any(_images(place))), None)
    if root is None:
        raise DatasetError(
            f"no picture like train/1/train_00006_aligned.jpg in {config.images}; pass the folder that holds "
            "RAF-DB's train"
        )
    faces, rejections = [], []
    for image in _images(root.resolve()):
        folder, number = image.parts[-3:-1]
        id_ = f"{folder}/{number}/{image.stem}"
        if number not in _EMOTIONS:
            rejections.append(Rejection(id_, image, "unknown emotion", f"none of {', '.join(_EMOTIONS)}"))
            continue
        part = "holdout" if folder == "test" else split(id_)
        faces.append(LabelledFace(id_, image, part, emotion=_one_hot(_EMOTIONS[number])))
    notes = (
        f"Split as published: the test folder is the holdout. Of train {config.selection_fraction:.0%} are the "
        "selection, by a hash of the id.",
        "One emotion a face, of which about forty people voted; contempt was no choice. The crop is tight.",
        "The test folder is whole, as published figures need it, and its pictures are in no other split. "
        "Of other equal pictures one stays, the most held out, or none where their emotions differ.",
    )
    return LabelledFaces("RAF-DB", faces, rejections, notes)


def _images(root: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        files = sorted((root / folder).glob("*/[!.]*"))
        yield from (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _one_hot(emotion: str) -> tuple[float, ...]:
    return tuple(float(name == emotion) for name in EMOTIONS)


if __name__ == "__main__":
    program.run(lambda: print(main(tyro.cli(RafDbConfig))), stopped=STOPPED)
