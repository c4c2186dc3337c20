"""Faces of any dataset -> its dataset folder: manifest.csv, images.npy, rejected.csv, card.md.

A run that is stopped at any point continues when it is started again with the same inputs, and ends in the same bytes.
The unfinished work lives in `.packing` inside the folder; the folder's own files change only when all of it is done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from numpy.lib.format import open_memmap
from tqdm import tqdm

import contract.images
from contract.files import ANY_NAME, replacing
from contract.samples import COLUMNS, IMAGES_NAME, MANIFEST_NAME, write_manifest
from contract.spec import IMAGE, Images
from training.data.faces import DatasetError, LabelledFace, LabelledFaces, Rejection
from training.data.packing.card import dataset_card
from training.data.packing.decoding import DecodedImages, decode_images
from training.data.packing.duplicates import digests_of_manifests, duplicates

REJECTED_NAME = "rejected.csv"
CARD_NAME = "card.md"
FINGERPRINT_NAME = "inputs.sha256"  # what the finished folder was made of
_WORK_NAME = ".packing"

STOPPED = "stopped; the same command continues where it was"


@dataclass(frozen=True)
class Duplicates:
    """Which repeated pictures to leave out; by default none."""

    within: bool = False
    keep_whole: str | None = None  # a published split in which repeated pictures stay, lest it be another set
    of_manifests: tuple[Path, ...] = ()  # other datasets, whose pictures this one gives up


def pack(source: LabelledFaces, out: Path, *, workers: int, drop: Duplicates = Duplicates()) -> str:
    """Make the dataset folder and return its card; the row order is that of `source.faces`.

    Raises DatasetError where no usable face is left, ManifestError for `drop`'s manifests, OSError.
    """
    out = out.resolve()
    work = out / _WORK_NAME
    fingerprint = _fingerprint(source, drop)
    if not _is_finished(out, fingerprint):
        _require_faces(source, source.faces, source.rejections)
        elsewhere = digests_of_manifests(drop.of_manifests)
        files = [face.image for face in source.faces if face.image is not None]
        decoded = decode_images(files, work / "chunks", fingerprint=fingerprint, workers=workers)
        _finish(source, decoded, dict(_rejections(source.faces, decoded, drop, elsewhere)), out)
        _write_text(out / FINGERPRINT_NAME, fingerprint)
    shutil.rmtree(work, ignore_errors=True)
    return (out / CARD_NAME).read_text(errors=ANY_NAME)


def write_labels(source: LabelledFaces, out: Path) -> str:
    """Make the same folder without the images, for counting where only labels are at hand; return the card."""
    if (out / IMAGES_NAME).exists():
        raise DatasetError(f"{out} holds a packed dataset, which a manifest without images would break; choose another")
    _require_faces(source, source.faces, source.rejections)
    out.mkdir(parents=True, exist_ok=True)
    return _write_tables(source, source.faces, source.rejections, out.resolve(), out.resolve())


def _finish(source: LabelledFaces, decoded: DecodedImages, left_out: Mapping[int, Rejection], out: Path) -> None:
    """Make every file beside the chunks, then move them into the folder: the manifest, last, completes it."""
    kept = np.array([i not in left_out for i in range(len(source.faces))])
    faces = [face for face, keep in zip(source.faces, kept, strict=True) if keep]
    rejected = [*source.rejections, *left_out.values()]
    _require_faces(source, faces, rejected)
    ready = out / _WORK_NAME / "ready"
    ready.mkdir(exist_ok=True)
    _write_images(decoded, kept, ready / IMAGES_NAME)
    _write_tables(source, faces, rejected, ready, out)
    for name in (FINGERPRINT_NAME, MANIFEST_NAME):
        (out / name).unlink(missing_ok=True)
    for name in (IMAGES_NAME, REJECTED_NAME, CARD_NAME, MANIFEST_NAME):
        (ready / name).replace(out / name)


def _rejections(
    faces: Sequence[LabelledFace], decoded: DecodedImages, drop: Duplicates, elsewhere: Collection[str]
) -> Iterator[tuple[int, Rejection]]:
    """The position of each face whose picture is unreadable or repeated."""
    for i in np.flatnonzero(~decoded.readable).tolist():
        yield i, Rejection(faces[i].id, faces[i].image, "unreadable image", str(decoded.errors[i]))
    if drop.within or drop.of_manifests:
        yield from duplicates(faces, decoded.digests.tolist(), keep_whole=drop.keep_whole, elsewhere=elsewhere)


def _write_images(decoded: DecodedImages, kept: np.ndarray[tuple[int], np.dtype[np.bool_]], path: Path) -> None:
    # Not a temporary name: nothing reads it here, and an unfinished one is begun again.
    packed: Images = open_memmap(path, "w+", np.uint8, (int(kept.sum()), *IMAGE.dims))
    row = 0
    with tqdm(total=len(packed), desc="packing images", unit="face") as progress:
        for images in decoded.batches(kept):
            packed[row : row + len(images)] = images
            row += len(images)
            progress.update(len(images))


def _write_tables(
    source: LabelledFaces,
    faces: Sequence[LabelledFace],
    rejections: Sequence[Rejection],
    folder: Path,
    relative_to: Path,
) -> str:
    """manifest.csv, rejected.csv and card.md into `folder`, their paths relative to `relative_to`; returns the card."""
    rejections = sorted(rejections, key=lambda r: (r.id, str(r.path), r.reason))
    table = pd.DataFrame([_row(face, relative_to) for face in faces])
    rejected = [(r.id, _relative(r.path, relative_to), r.reason, r.detail) for r in rejections]
    card = dataset_card(source, table, rejections)
    with replacing(folder / REJECTED_NAME) as temporary:
        pd.DataFrame(rejected, columns=["id", "path", "reason", "detail"]).to_csv(
            temporary, index=False, errors=ANY_NAME
        )
    _write_text(folder / CARD_NAME, card)
    write_manifest(table, folder / MANIFEST_NAME)
    return card


def _row(face: LabelledFace, relative_to: Path) -> dict[str, object]:
    labels = (face.id, _relative(face.image, relative_to), face.age, face.gender, *face.emotion, face.split)
    return {**dict(zip(COLUMNS, labels, strict=True)), **face.extra}


def _relative(path: Path | None, folder: Path) -> str:
    return "" if path is None else Path(os.path.relpath(path, folder)).as_posix()


def _require_faces(source: LabelledFaces, faces: Sequence[LabelledFace], rejections: Sequence[Rejection]) -> None:
    if faces:
        return
    counts = Counter(rejection.reason for rejection in rejections).most_common()
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts) or "nothing was found"
    example = next((f" (such as {r.path}: {r.detail})" for r in rejections if r.reason == counts[0][0]), "")
    raise DatasetError(f"no usable face for {source.title}: {reasons}{example}; check the folders that were given")


def _is_finished(out: Path, fingerprint: str) -> bool:
    names = (FINGERPRINT_NAME, MANIFEST_NAME, IMAGES_NAME, CARD_NAME)
    return all((out / name).exists() for name in names) and (out / FINGERPRINT_NAME).read_text() == fingerprint


def _fingerprint(source: LabelledFaces, drop: Duplicates) -> str:
    """sha256 of all that the result depends on: the faces, their files' sizes and times, the options, the decoder."""
    packed_elsewhere = [manifest.with_name(IMAGES_NAME) for manifest in drop.of_manifests]
    digest = hashlib.sha256(Path(contract.images.__file__).read_bytes())
    for item in (PIL.__version__, source, drop):
        digest.update(repr(item).encode())
    for path in [*(face.image for face in source.faces), *packed_elsewhere]:
        if path is not None and path.exists():
            status = path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, errors=ANY_NAME)
