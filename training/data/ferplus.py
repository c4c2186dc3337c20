"""FER+ -> a dataset folder: ten people's votes on each of FER2013's faces as soft emotions; no age, no gender.

python -m training.data.ferplus --images data/ferplus --out data/packed/ferplus

What is special about this dataset is here: the votes are on the contract's very eight emotions, some faces are none by
the voters' word, and a plain accuracy is published only of faces on which more than half of the voters agree.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from contract import program
from contract.spec import EMOTIONS
from training.data.faces import IMAGE_SUFFIXES, DatasetError, LabelledFace, LabelledFaces, Rejection
from training.data.packing.pack import STOPPED, Duplicates, pack

VOTES_NAME = "fer2013new.csv"
# The votes' column `Usage` -> the pictures' folder and the split.
_USAGES = {
    "Training": ("FER2013Train", "train"),
    "PublicTest": ("FER2013Valid", "selection"),
    "PrivateTest": ("FER2013Test", "holdout"),
}
# The column of votes -> the reason to leave a face out that has most of them.
_NO_EMOTIONS = {"unknown": "most votes unknown", "NF": "most votes not a face"}
_COLUMNS = ("Usage", "Image name", *EMOTIONS, *_NO_EMOTIONS)
_NOTES = (
    "Split as published: PrivateTest is the holdout, PublicTest the selection.",
    "An emotion's confidence is its share of the votes for the eight emotions. The pictures are 48 x 48 and grey.",
    "As in FER+ itself, rows without an image name and faces whose most votes are unknown or NF (not a face) are left "
    "out.",
    'The majority label ("majority of 8") is the argmax of the eight votes; of equal ones the first in the columns\' '
    "order here.",
    'The column `agreement` says "majority" where more than half of the votes are for one emotion, single votes not '
    "counted. FER+'s own code tests on these faces alone; there about 85 % are published (VGG13, Barsoum et al. 2016).",
    "The test pictures are all here, as published figures need them, and are in no other split. "
    "Of other equal pictures one stays, the most held out, or none where their votes differ.",
)


@dataclass(frozen=True)
class FerPlusConfig:
    """Make a dataset folder of FER+. A run that was stopped continues when started again."""

    images: Path  # holds FER2013Train/fer0000000.png ..., FER2013Valid and FER2013Test, or is the parent of ferplus
    out: Path  # the dataset folder to make
    votes: Path | None = None  # FER+'s fer2013new.csv; where not given, the one beside FER2013Train
    workers: int = os.cpu_count() or 1  # decoding is all there is to do, and scales with the cores
    exclude_duplicates_of: tuple[Path, ...] = ()  # manifests of datasets whose pictures must not occur in this one too


def main(config: FerPlusConfig) -> str:
    """Make the folder that `config` describes and return its card. Raises DatasetError, ManifestError, OSError."""
    drop = Duplicates(within=True, keep_whole="holdout", of_manifests=config.exclude_duplicates_of)
    return pack(collect(config), config.out, workers=config.workers, drop=drop)


def collect(config: FerPlusConfig) -> LabelledFaces:
    """Find the pictures and read their votes."""
    root = _root(config.images)
    images = _images(root)
    faces: dict[str, LabelledFace] = {}
    rejections, named = [], set()
    for number, row in enumerate(_rows(config.votes or root / VOTES_NAME)):
        found = _face(row, images, fallback_id=f"row {number}")
        named.add(found.id)
        if isinstance(found, Rejection):
            rejections.append(found)
        elif found.id in faces:
            rejections.append(Rejection(found.id, found.image, "repeated row"))
        else:
            faces[found.id] = found
    rejections += [Rejection(id_, path, "missing votes") for id_, path in images.items() if id_ not in named]
    return LabelledFaces("FER+", list(faces.values()), rejections, _NOTES)


def _root(folder: Path) -> Path:
    for place in (folder, folder / "ferplus"):
        if any((place / name).is_dir() for name, _ in _USAGES.values()):
            return place.resolve()
    raise DatasetError(f"no folder FER2013Train in {folder}; pass the one that holds it and FER+'s other two")


def _images(root: Path) -> dict[str, Path]:
    """The pictures by id: their folder's and their own name."""
    files = [path for name, _ in _USAGES.values() for path in sorted((root / name).glob("[!.]*"))]
    return {f"{path.parent.name}/{path.stem}": path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}


def _rows(votes: Path) -> Iterator[Mapping[str, str]]:
    if not votes.is_file():
        raise DatasetError(f"{votes} does not exist; pass FER+'s {VOTES_NAME} as --votes")
    with votes.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file, restval="")
        if missing := [name for name in _COLUMNS if name not in (table.fieldnames or ())]:
            raise DatasetError(f"{votes} lacks the columns {', '.join(missing)}; pass FER+'s own {VOTES_NAME}")
        yield from table


def _face(row: Mapping[str, str], images: Mapping[str, Path], *, fallback_id: str) -> LabelledFace | Rejection:
    folder, split = _USAGES.get(row["Usage"], ("", ""))
    name = Path(row["Image name"].strip()).stem  # the pictures may have been stored in another format since
    id_ = f"{folder}/{name}" if folder and name else fallback_id
    image = images.get(id_)
    if not folder:
        return Rejection(id_, image, "unknown usage", f"{row['Usage']!r} is none of {', '.join(_USAGES)}")
    if not name:
        return Rejection(id_, image, "no image name")
    try:
        emotions = [int(row[emotion]) for emotion in EMOTIONS]
        others = {reason: int(row[column]) for column, reason in _NO_EMOTIONS.items()}
    except ValueError as error:
        return Rejection(id_, image, "malformed votes", str(error))
    if min(*emotions, *others.values()) < 0 or not sum(emotions) + sum(others.values()):
        return Rejection(id_, image, "malformed votes", f"{emotions} for emotions, {list(others.values())} for none")
    most = max(others, key=others.__getitem__)
    if others[most] > max(emotions):  # an emotion level with them is among the most voted
        return Rejection(id_, image, most, f"{others[most]} votes against {max(emotions)}")
    if image is None:
        return Rejection(id_, None, "missing image")
    agreement = "majority" if _is_majority(emotions, list(others.values())) else "no majority"
    shares = tuple(votes / sum(emotions) for votes in emotions)
    return LabelledFace(id_, image, split, emotion=shares, extra={"agreement": agreement})


def _is_majority(emotions: list[int], others: list[int]) -> bool:
    """Whether FER+'s own test counts the face: over half of the votes agree, single ones being taken for slips."""
    counted = [votes for votes in (*emotions, *others) if votes > 1]
    return 2 * max(emotions) > sum(counted) > 0 and max(emotions) > 1


if __name__ == "__main__":
    program.run(lambda: print(main(tyro.cli(FerPlusConfig))), stopped=STOPPED)
