from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.samples import load_samples, read_manifest
from training.data.faces import DatasetError
from training.data.utkface import UtkFaceConfig, collect, main

REAL = Path(__file__).parents[3] / "data/utkface"


def write_picture(file: Path, *, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file, lossless=True)


def config(tmp_path: Path, *names: str) -> UtkFaceConfig:
    for seed, name in enumerate(names):
        write_picture(tmp_path / "raw" / name, seed=seed)
    return UtkFaceConfig(images=tmp_path / "raw", out=tmp_path / "out", workers=1)


def test_labels_are_read_from_the_name_with_gender_the_other_way_round(tmp_path: Path) -> None:
    main(config(tmp_path, "26_0_1_20170116220224657.webp", "part1/8_1_3_20170109204611305.png"))
    table = read_manifest(tmp_path / "out/manifest.csv")
    assert table[["age", "gender", "race"]].to_numpy().tolist() == [[26, 1, "black"], [8, 0, "indian"]]


def test_emotion_is_missing(tmp_path: Path) -> None:
    made = config(tmp_path, *(f"26_0_1_2017011622022{i:04d}.png" for i in range(20)))
    card = main(made)
    labels = load_samples(tmp_path / "out/manifest.csv", "train").labels
    assert np.isnan(labels.emotion).all()
    assert not np.isnan(labels.age).any()
    assert "emotion" not in card
    assert "always happiness" not in card


@pytest.mark.parametrize(
    "name",
    ["61_1_20170109142408075.webp", "61__1_20170109142408075.webp", "30_2_1_2017.webp", "30_1_5_2017.webp", "face.webp",
     "200_1_1_20170109142408075.webp", "-1_1_1_20170109142408075.webp"],
)  # fmt: skip
def test_a_name_without_labels_is_left_out(tmp_path: Path, name: str) -> None:
    main(config(tmp_path, "26_0_1_20170116220224657.webp", name))
    rejected = pd.read_csv(tmp_path / "out/rejected.csv")
    assert rejected[["path", "reason"]].to_numpy().tolist() == [[f"../raw/{name}", "malformed name"]]


@pytest.mark.parametrize("name", ["24_0_1_20170116220224657 .webp", "55_0_0_20170116232725357jpg.chip.webp"])
def test_a_blemish_in_the_date_costs_no_face(tmp_path: Path, name: str) -> None:
    assert "1 faces, 0 left out" in main(config(tmp_path, name))


def test_one_name_in_two_forms_is_one_face(tmp_path: Path) -> None:
    card = main(config(tmp_path, "26_0_1_20170116220224657.jpg", "26_0_1_20170116220224657.jpg.chip.jpg"))
    assert "1 faces, 1 left out" in card
    assert "repeated name" in card


def test_adding_pictures_moves_none_to_another_split(tmp_path: Path) -> None:
    made = config(tmp_path, *(f"20_0_0_{i:017d}.png" for i in range(30)))
    first = {face.id: face.split for face in collect(made).faces}
    for i in range(30, 60):
        write_picture(tmp_path / f"raw/2_0_0_{i:017d}.png", seed=i)
    later = {face.id: face.split for face in collect(made).faces}
    assert set(first.values()) == {"train", "selection", "holdout"}
    assert first.items() < later.items()


def test_a_picture_under_two_ages_is_left_out_and_a_mere_copy_once(tmp_path: Path) -> None:
    made = config(tmp_path, "26_0_1_20170116220224657.png")
    write_picture(tmp_path / "raw/26_0_1_20170116220224999.webp", seed=0)
    for name in ("8_1_3_20170109204611305.png", "9_1_3_20170109204611999.png"):
        write_picture(tmp_path / "raw" / name, seed=7)
    card = main(made)
    assert "1 faces, 3 left out" in card
    assert "| same picture with different labels | 2 |" in card


def test_a_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="pass the one that holds UTKFace"):
        main(UtkFaceConfig(images=tmp_path / "nowhere", out=tmp_path / "out"))


@pytest.mark.skipif(not REAL.is_dir(), reason="UTKFace is not at hand")
def test_the_real_names_are_read_but_two() -> None:
    found = collect(UtkFaceConfig(images=REAL, out=Path("unused")))
    assert len(found.faces) == 21_309
    assert sorted(rejection.id for rejection in found.rejections) == [
        "61_1_20170109142408075",
        "61_1_20170109150557335",
    ]
