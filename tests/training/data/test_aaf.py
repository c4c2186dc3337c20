from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.samples import load_samples, read_manifest
from training.data.aaf import AafConfig, collect, main
from training.data.faces import DatasetError

REAL = Path(__file__).parents[2] / "data/aaf"


def write_picture(file: Path, *, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(file, lossless=True)


def config(tmp_path: Path, *names: str) -> AafConfig:
    for seed, name in enumerate(names):
        write_picture(tmp_path / "raw" / name, seed=seed)
    return AafConfig(images=tmp_path / "raw", out=tmp_path / "out", workers=1)


def test_the_age_is_in_the_name_and_the_number_tells_the_gender(tmp_path: Path) -> None:
    main(config(tmp_path, "00000A02.webp", "07380A80.png", "07381A03.webp", "deep/13321A100.webp"))
    table = read_manifest(tmp_path / "out/manifest.csv").sort_values("id")
    assert table[["id", "age", "gender"]].to_numpy().tolist() == [
        ["00000A02", 2, 0],
        ["07380A80", 80, 0],
        ["07381A03", 3, 1],
        ["13321A100", 100, 1],
    ]


def test_emotion_is_missing(tmp_path: Path) -> None:
    card = main(config(tmp_path, *(f"{i:05d}A20.webp" for i in range(20))))
    labels = load_samples(tmp_path / "out/manifest.csv", "train").labels
    assert np.isnan(labels.emotion).all()
    assert "emotion" not in card


@pytest.mark.parametrize("name", ["0000A02.webp", "00000A2.webp", "00000B02.webp", "00000A121.webp", "00000A02_1.webp"])
def test_a_name_without_labels_is_left_out(tmp_path: Path, name: str) -> None:
    main(config(tmp_path, "00001A02.webp", name))
    rejected = pd.read_csv(tmp_path / "out/rejected.csv")
    assert rejected[["path", "reason"]].to_numpy().tolist() == [[f"../raw/{name}", "malformed name"]]


def test_one_name_in_two_forms_is_one_face(tmp_path: Path) -> None:
    card = main(config(tmp_path, "00001A02.png", "00001A02.webp"))
    assert "1 faces, 1 left out" in card
    assert "repeated name" in card


def test_adding_pictures_moves_none_to_another_split(tmp_path: Path) -> None:
    made = config(tmp_path, *(f"{i:05d}A20.webp" for i in range(40)))
    first = {face.id: face.split for face in collect(made).faces}
    for i in range(40, 60):
        write_picture(tmp_path / f"raw/{i:05d}A20.webp", seed=i)
    later = {face.id: face.split for face in collect(made).faces}
    assert set(first.values()) == {"train", "selection", "holdout"}
    assert first.items() < later.items()


def test_a_picture_under_two_ages_is_left_out_and_one_of_another_dataset_too(tmp_path: Path) -> None:
    main(AafConfig(images=config(tmp_path, "00001A02.webp").images, out=tmp_path / "first", workers=1))
    made = config(tmp_path, "00001A02.webp", "00002A30.webp", "00003A30.webp", "00004A40.webp")
    write_picture(tmp_path / "raw/00003A31.webp", seed=2)
    manifests = (tmp_path / "first/manifest.csv",)
    card = main(AafConfig(images=made.images, out=made.out, workers=1, exclude_duplicates_of=manifests))
    assert read_manifest(tmp_path / "out/manifest.csv")["id"].tolist() == ["00002A30", "00004A40"]
    assert "| duplicate in another dataset | 1 |" in card
    assert "| same picture with different labels | 2 |" in card


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    made = config(tmp_path, "00001A02.webp")
    main(made)
    first = (tmp_path / "out/manifest.csv").stat().st_mtime_ns
    main(made)
    assert (tmp_path / "out/manifest.csv").stat().st_mtime_ns == first


def test_a_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="pass the one that holds All-Age-Faces"):
        main(AafConfig(images=tmp_path / "nowhere", out=tmp_path / "out"))


@pytest.mark.skipif(not REAL.is_dir(), reason="All-Age-Faces is not at hand")
def test_every_real_name_is_read() -> None:
    found = collect(AafConfig(images=REAL, out=Path("unused")))
    assert len(found.faces) == 11_976
    assert not found.rejections
    assert {face.age for face in found.faces} == set(range(2, 81))
