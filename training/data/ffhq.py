"""FFHQ's pictures and FFHQ-Features' annotations -> a dataset folder.

python -m training.data.ffhq --images data/thumbnails128x128 --annotations data/json --out data/ffhq
python -m training.data.ffhq --annotations data/json --out runs/labels --labels-only
python -m training.data.ffhq --images png jpeg --annotations data/json --out data/ffhq --holdout-ids 610-699 4000-4499

What is special about this dataset is here: 529 annotations are empty, 70 hold two faces, 1,405 faces have age 0 (which
the published run trained on at no time, but tested on), and who is trained and tested on goes by the picture's number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from contract import program
from training.data.faces import IMAGE_SUFFIXES, DatasetError, LabelledFace, LabelledFaces, Rejection
from training.data.ffhq_features import AnnotationError, FaceLabels, try_annotations
from training.data.packing.pack import STOPPED, pack, write_labels
from training.data.packing.parallel import map_in_processes
from training.data.splits import HashSplit, RangeSplit, id_ranges
from training.data.synthetic import DESCRIPTION_NAME

FIRST_SELECTION_ID = 57_000  # taken out of the published training ids, for choosing a model
FIRST_HOLDOUT_ID = 60_000  # the published validation

_IMAGE_FOLDERS = ("thumbnails128x128", "images1024x1024")  # the first is small and canonical already
_ANNOTATION_FOLDERS = ("json",)
_ANNOTATIONS_A_TASK = 500
_NUMBER = re.compile(r"\d{5}")
_FORMATS = {".jpg": "jpeg"}  # of other suffixes the name without the dot


@dataclass(frozen=True)
class FfhqConfig:
    """Make a dataset folder of FFHQ and FFHQ-Features. A run that was stopped continues when started again."""

    annotations: Path  # holds 00000.json ..., flat or in folders of a thousand, or is the parent of `json`
    out: Path  # the dataset folder to make
    images: tuple[Path, ...] = ()  # each holds 00000.png ... likewise, of any size, or the parent of thumbnails128x128
    workers: int = os.cpu_count() or 1  # decoding is all there is to do, and scales with the cores
    labels_only: bool = False  # count and list the faces without their pictures
    split_by: Literal["auto", "id", "hash"] = "auto"  # auto: by published id where there are ids from 60000 on
    selection_fraction: float = 0.05  # only where split by hash
    holdout_fraction: float = 0.15  # only where split by hash
    holdout_ids: tuple[str, ...] = ()  # like 610-699 4000-4499, ends included: split by these instead
    selection_ids: tuple[str, ...] = ()  # likewise; what is in neither is train


def main(config: FfhqConfig) -> str:
    """Make the folder that `config` describes and return its card. Raises DatasetError, OSError."""
    if not config.images and not config.labels_only:
        raise DatasetError("--images is needed: the folder with FFHQ's pictures, or --labels-only to do without")
    annotations = find_numbered(config.annotations, (".json",), _ANNOTATION_FOLDERS)
    images: dict[str, Path] | None = None
    if not config.labels_only:
        images = {}
        for folder in reversed(config.images):  # of several files with one number the first folder's counts
            images |= find_numbered(folder, IMAGE_SUFFIXES, _IMAGE_FOLDERS)
    source = collect(config, annotations, images)
    if images is None:
        return write_labels(source, config.out)
    return pack(source, config.out, workers=config.workers)


def collect(config: FfhqConfig, annotations: Mapping[str, Path], images: Mapping[str, Path] | None) -> LabelledFaces:
    """Read the annotations (id -> file) and match them with the pictures; None: the pictures do not matter."""
    split, how_split = _split(config, annotations if images is None else annotations.keys() & images.keys())
    faces, rejections = [], []
    for id_, labels in _read_all(annotations, workers=config.workers):
        if isinstance(labels, AnnotationError):
            rejections.append(Rejection(id_, annotations[id_], labels.reason, labels.detail))
        elif images is not None and id_ not in images:
            rejections.append(Rejection(id_, annotations[id_], "missing image"))
        else:
            part = "age_zero" if labels.age == 0 else split(id_)
            image = None if images is None else images[id_]
            faces.append(LabelledFace(id_, image, part, labels.age, labels.gender, labels.emotion, _format(image)))
    without_annotation = {id_: path for id_, path in (images or {}).items() if id_ not in annotations}
    rejections += [Rejection(id_, path, "missing annotation") for id_, path in without_annotation.items()]
    title, notes = _origin(config.annotations)
    return LabelledFaces(title, faces, rejections, [how_split, *notes], ("holdout", "published"))


def _format(image: Path | None) -> dict[str, str]:
    """The column that lets pictures be scored apart by how they were stored: a JPEG's blur moves the ages."""
    if image is None:
        return {}
    suffix = image.suffix.lower()
    return {"format": _FORMATS.get(suffix, suffix[1:])}


def find_numbered(folder: Path, suffixes: Sequence[str], subfolders: Sequence[str]) -> dict[str, Path]:
    """Find files named like 00000.png, by number: in `folder`, its folders of a thousand, or so in one of `subfolders`.

    Of several files with one number the first suffix counts, and the flat file before the one in a folder. Raises
    DatasetError where there is no such folder or file.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; pass the one that holds 00000{suffixes[0]} and the others")
    for place in (folder, *(folder / name for name in subfolders)):
        if found := _numbered_files(place.resolve(), suffixes):
            return found
    raise DatasetError(
        f"no file named like 00000{suffixes[0]} or 00000/00000{suffixes[0]} in {folder} or its "
        f"{' or '.join(subfolders)}; pass the folder that holds them"
    )


def _numbered_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    thousands = sorted(path for path in folder.iterdir() if _NUMBER.fullmatch(path.name) and path.is_dir())
    found: dict[str, Path] = {}
    for place in (folder, *thousands):
        files = [path for path in place.iterdir() if path.suffix.lower() in suffixes and _NUMBER.fullmatch(path.stem)]
        for path in sorted(files, key=lambda path: (suffixes.index(path.suffix.lower()), path.name)):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _origin(annotations: Path) -> tuple[str, Sequence[str]]:
    """Title and notes of the card: faces drawn by training.data.synthetic come in the same layout."""
    contaminated = "The published protocol tests on its own training images too: its figures are contaminated."
    if any((folder / DESCRIPTION_NAME).exists() for folder in (annotations, annotations.parent)):
        return "synthetic faces in FFHQ's layout", ["The labels are what the faces were drawn from.", contaminated]
    azure = (
        "The labels are what Azure's face service, retired since, said of the thumbnails: a model's output, not truth."
    )
    return "FFHQ with FFHQ-Features", [azure, contaminated]


def _split(config: FfhqConfig, ids: Iterable[str]) -> tuple[Callable[[str], str], str]:
    """What says which split an id belongs to, and the sentence about it for the card."""
    if config.holdout_ids or config.selection_ids:
        return _given_split(config)
    reaches_holdout = any(int(id_) >= FIRST_HOLDOUT_ID for id_ in ids)
    if config.split_by == "id" or (config.split_by == "auto" and reaches_holdout):
        return _published_split, (
            f"Split by the published ids: train below {FIRST_SELECTION_ID}, selection up to {FIRST_HOLDOUT_ID - 1}, "
            f"holdout from {FIRST_HOLDOUT_ID} on; faces of age 0 apart."
        )
    by_hash = HashSplit(config.selection_fraction, config.holdout_fraction)
    return by_hash, (
        f"**Split by a hash of the id ({by_hash}), not by the published ids**"
        f"{'' if reaches_holdout else f', since no id reaches {FIRST_HOLDOUT_ID}'}: its figures cannot stand beside "
        "published ones. Faces of age 0 apart."
    )


def _given_split(config: FfhqConfig) -> tuple[Callable[[str], str], str]:
    if config.split_by != "auto":
        raise DatasetError(f"--split-by {config.split_by} and given ids contradict each other; leave one out")
    by_range = RangeSplit(id_ranges(config.holdout_ids), id_ranges(config.selection_ids))
    return by_range, (
        f"**Split by given ids ({by_range}; all others train), not by the published ones**: its figures cannot stand "
        "beside published ones. Faces of age 0 apart."
    )


def _published_split(id_: str) -> str:
    if int(id_) < FIRST_SELECTION_ID:
        return "train"
    return "selection" if int(id_) < FIRST_HOLDOUT_ID else "holdout"


def _read_all(annotations: Mapping[str, Path], *, workers: int) -> Iterator[tuple[str, FaceLabels | AnnotationError]]:
    ids = list(annotations)
    tasks = [ids[start : start + _ANNOTATIONS_A_TASK] for start in range(0, len(ids), _ANNOTATIONS_A_TASK)]
    files = [[annotations[id_] for id_ in task] for task in tasks]
    with tqdm(total=len(ids), desc="reading annotations", unit="face") as progress:
        for task, labels in zip(tasks, map_in_processes(try_annotations, files, workers=workers), strict=True):
            yield from zip(task, labels, strict=True)
            progress.update(len(task))


if __name__ == "__main__":
    program.run(lambda: print(main(tyro.cli(FfhqConfig))), stopped=STOPPED)
