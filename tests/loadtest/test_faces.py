"""The pictures that are sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.images import ImageError, canonical
from contract.samples import COLUMNS
from loadtest.faces import SYNTHETIC_PICTURES, load_pictures


def test_synthetic_pictures_are_the_same_every_time_and_differ_among_themselves() -> None:
    first, again = load_pictures("").items, load_pictures("").items
    assert len(first) == SYNTHETIC_PICTURES == len({picture.encoded for picture in first})
    assert [picture.encoded for picture in first] == [picture.encoded for picture in again]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def test_both_forms_of_a_picture_hold_the_same_face(folder: Path) -> None:
    pictures = load_pictures(str(folder))
    assert [picture.encoded for picture in pictures.items] == [(folder / f"{n}.png").read_bytes() for n in range(3)]
    for picture in pictures.items:
        assert picture.canonical.shape == (1, 128, 128, 3)
        np.testing.assert_array_equal(picture.canonical[0], canonical(picture.encoded))
    assert pictures.description.startswith(f"3 pictures of {folder}, ")


def test_a_manifest_names_the_files_of_its_test_faces(folder: Path) -> None:
    rows = [f"{n},{n}.png,30,1,0,0,0,0,1,0,0,0,{split}" for n, split in enumerate(("train", "holdout", "holdout"))]
    (folder / "manifest.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    np.save(folder / "images.npy", np.zeros((3, 128, 128, 3), np.uint8))
    pictures = load_pictures(str(folder / "manifest.csv")).items
    assert [picture.encoded for picture in pictures] == [(folder / f"{n}.png").read_bytes() for n in (1, 2)]


def test_what_is_no_picture_is_refused_before_any_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture in"):
        load_pictures(str(tmp_path))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ImageError):
        load_pictures(str(tmp_path))
