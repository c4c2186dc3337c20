"""The manifest of a dataset, its packed images, and which faces each protocol trains on, selects on and tests on.

A dataset folder holds `manifest.csv`, a row a face, and `images.npy`, uint8 [rows, 128, 128, 3] in the same order,
which NumPy maps into memory: reading a batch decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.files import ANY_NAME, replacing
from contract.program import UserError
from contract.spec import EMOTIONS, IMAGE, Float32, Images

MANIFEST_NAME = "manifest.csv"
IMAGES_NAME = "images.npy"
# path is relative to the manifest's folder; a label that a dataset lacks is an empty field, read as NaN.
COLUMNS = ("id", "path", "age", "gender", *EMOTIONS, "split")
_COLUMN_DTYPES = dict.fromkeys(COLUMNS, float) | dict.fromkeys(("id", "path", "split"), str)

Protocol = Literal["holdout", "published"]
Role = Literal["train", "selection", "test"]

# The manifest's `split` says where a face stands; a protocol says what each such part is used for.
PARTS = ("train", "selection", "holdout", "age_zero")
ROLES: dict[Protocol, dict[Role, tuple[str, ...]]] = {
    "holdout": {"train": ("train",), "selection": ("selection",), "test": ("holdout",)},
    # As published: selected on what it is tested on, and tested on its training images too (contaminated).
    "published": {"train": ("train", "selection"), "selection": ("holdout",), "test": PARTS},
}


class ManifestError(UserError, ValueError):
    """A manifest or its packed images cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Labels:
    """Of N faces: age [N] in years, gender [N] (1 = male), emotion [N, 8] summing to 1; NaN where one is missing."""

    age: Float32
    gender: Float32
    emotion: Float32

    def __len__(self) -> int:
        return len(self.age)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> Labels:
        return Labels(self.age[index], self.gender[index], self.emotion[index])


@dataclass(frozen=True)
class Sample:
    """One face: where its picture is and what is known of it."""

    path: Path
    age: float
    gender: float
    emotion: Float32  # [8]


@dataclass(frozen=True)
class Samples:
    """Some rows of a dataset: labels in memory, images read from the packed file as they are asked for."""

    folder: Path
    table: pd.DataFrame  # the chosen rows of the manifest
    packed: Images  # the whole packed file, mapped
    rows: NDArray[np.int64]  # [N], where each of `table` stands in `packed`

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.table.iloc[index]
        return Sample(self.folder / row["path"], row["age"], row["gender"], self.labels.emotion[index])

    @property
    def labels(self) -> Labels:
        return labels_of(self.table)

    @property
    def paths(self) -> list[Path]:
        return [self.folder / path for path in self.table["path"]]

    def image_batches(self, batch_size: int) -> Iterator[Images]:
        """Yield images uint8 [<= batch_size, 128, 128, 3], in order."""
        for start in range(0, len(self), batch_size):
            yield self.packed[self.rows[start : start + batch_size]]

    def take(self, index: slice | NDArray[np.int64]) -> Samples:
        """Return some of these samples, by position."""
        return Samples(self.folder, self.table.iloc[index].reset_index(drop=True), self.packed, self.rows[index])


def labels_of(table: pd.DataFrame) -> Labels:
    """Return the label columns of a manifest's rows as arrays."""
    age, gender = (table[name].to_numpy(np.float32) for name in ("age", "gender"))
    return Labels(age, gender, table[list(EMOTIONS)].to_numpy(np.float32))


def load_samples(manifest: Path, role: Role = "test", protocol: Protocol = "holdout") -> Samples:
    """Return the faces that `protocol` uses for `role`.

    Raises ManifestError for a missing or broken file, or where there is no such face.
    """
    table = read_manifest(manifest)
    packed = map_images(manifest.with_name(IMAGES_NAME), len(table))
    parts = ROLES[protocol][role]
    rows = np.flatnonzero(table["split"].isin(parts))
    if not len(rows):
        raise ManifestError(f"{manifest} has no face for {role} in protocol {protocol} (split {' or '.join(parts)})")
    return Samples(manifest.parent, table.iloc[rows].reset_index(drop=True), packed, rows)


def read_manifest(manifest: Path) -> pd.DataFrame:
    """Read the whole table: COLUMNS, and any others that its dataset has. Raises ManifestError."""
    try:
        table = pd.read_csv(manifest, dtype=_COLUMN_DTYPES, encoding_errors=ANY_NAME)
    except FileNotFoundError:
        raise ManifestError(f"{manifest} does not exist; make it with make data") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        raise ManifestError(f"{manifest} is not a manifest: {error}") from error
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ManifestError(
            f"{manifest} lacks the columns {', '.join(missing)}; make it again with python -m training.data.ffhq"
        )
    if unknown := sorted(set(table["split"].dropna()) - set(PARTS)):
        raise ManifestError(f"{manifest} has unknown splits {', '.join(unknown)}; known are {', '.join(PARTS)}")
    return table


def write_manifest(table: pd.DataFrame, manifest: Path) -> None:
    """Write the table in one step: COLUMNS in order, then what else a dataset knows of its faces."""
    others = [name for name in table.columns if name not in COLUMNS]
    with replacing(manifest) as temporary:
        table[[*COLUMNS, *others]].to_csv(temporary, index=False, errors=ANY_NAME)


def map_images(path: Path, rows: int) -> Images:
    """Map the packed images of a manifest with so many rows. Raises ManifestError where the two do not fit."""
    try:
        packed: Images = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise ManifestError(f"{path} does not exist; make it again with python -m training.data.ffhq") from None
    except ValueError as error:
        raise ManifestError(f"{path} is not a packed image file: {error}") from error
    if packed.dtype != IMAGE.numpy_dtype or packed.shape != (rows, *IMAGE.dims):
        raise ManifestError(
            f"{path} holds {packed.dtype} {list(packed.shape)}, its manifest needs uint8 {[rows, *IMAGE.dims]}; "
            "the two are from different runs: make them again with python -m training.data.ffhq"
        )
    return packed
