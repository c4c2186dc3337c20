"""FER2013 -> a dataset folder: one emotion a face, in small grey pictures; no age, no gender, never contempt.

python -m training.data.fer2013 --images data/fer2013 --out data/packed/fer2013

What is special about this dataset is here: the published split is in the folders' names, and pictures repeat across its
splits, some under another emotion.
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

# Of the published names the contract's; contempt is none of the set's classes.
_EMOTIONS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
_SPLITS = {"train": "train", "validation": "selection", "test": "holdout"}
_VALIDATION_PREFIX = "PublicTest_"  # some copies of the set keep the validation pictures in the test folder
_NOTES = (
    "Split as published: the test folder (PrivateTest) is the holdout, the validation (PublicTest) the selection.",
    "One emotion a face, as people saw it; contempt was no choice. The pictures are 48 x 48 and grey.",
    "The test folder is whole, as published figures need it, and its pictures are in no other split. "
    "Of other equal pictures one stays, the most held out, or none where their emotions differ.",
)


@dataclass(frozen=True)
class Fer2013Config:
    """Make a dataset folder of FER2013. A run that was stopped continues when started again."""

    images: Path  # holds train/angry/*.png ..., test and validation likewise, or is the parent of fer2013
    out: Path  # the dataset folder to make
    workers: int = os.cpu_count() or 1  # decoding is all there is to do, and scales with the cores
    exclude_duplicates_of: tuple[Path, ...] = ()  # manifests of datasets whose pictures must not occur in this one too


def main(config: Fer2013Config) -> str:
    """Make the folder that `config` describes and return its card. Raises DatasetError, ManifestError, OSError."""
    drop = Duplicates(within=True, keep_whole="holdout", of_manifests=config.exclude_duplicates_of)
    return pack(collect(config.images), config.out, workers=config.workers, drop=drop)


def collect(folder: Path) -> LabelledFaces:
    """Find the pictures; their labels and splits are their folders' names."""
    root = next((place for place in (folder, folder / "fer2013") if any(_images(place))), None)
    if root is None:
        raise DatasetError(f"no picture like train/happy/1.png in {folder}; pass the one that holds FER2013's train")
    faces, rejections = [], []
    for image in _images(root.resolve()):
        split, emotion = image.parts[-3:-1]
        id_ = f"{split}/{emotion}/{image.stem}"
        if emotion not in _EMOTIONS:
            rejections.append(Rejection(id_, image, "unknown emotion", f"none of {', '.join(_EMOTIONS)}"))
            continue
        published = "validation" if image.name.startswith(_VALIDATION_PREFIX) else split
        faces.append(LabelledFace(id_, image, _SPLITS[published], emotion=_one_hot(_EMOTIONS[emotion])))
    return LabelledFaces("FER2013", faces, rejections, _NOTES)


def _images(root: Path) -> Iterator[Path]:
    for split in _SPLITS:
        files = sorted((root / split).glob("*/[!.]*"))
        yield from (path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _one_hot(emotion: str) -> tuple[float, ...]:
    return tuple(float(name == emotion) for name in EMOTIONS)


if __name__ == "__main__":
    program.run(lambda: print(main(tyro.cli(Fer2013Config))), stopped=STOPPED)
