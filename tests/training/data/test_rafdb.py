from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.samples import load_samples, read_manifest
from contract.spec import EMOTIONS
from training.data.faces import DatasetError
from training.data.rafdb import RafDbConfig, collect, main

REAL = Path(__file__).parents[2] / "data/rafdb"


def config(tmp_path: Path, pictures: dict[str, int]) -> RafDbConfig:
    """Small pictures at these paths; equal numbers are equal pictures."""
    for name, seed in pictures.items():
        file = tmp_path / "rafdb" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (50, 50, 3), np.uint8)
        Image.fromarray(pixels).save(file, lossless=True)
    return RafDbConfig(images=tmp_path / "rafdb", out=tmp_path / "out", workers=1)


def splits(tmp_path: Path) -> dict[str, str]:
    table = read_manifest(tmp_path / "out/manifest.csv")
    return dict(zip(table["id"], table["split"], strict=True))


def test_each_number_is_one_emotion_and_contempt_is_none(tmp_path: Path) -> None:
    main(config(tmp_path, {f"test/{i}/test_{i:04d}_aligned.webp": i for i in range(1, 8)}))
    labels = load_samples(tmp_path / "out/manifest.csv").labels
    found = [EMOTIONS[i] for i in labels.emotion.argmax(1)]
    assert found == ["surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"]
    assert (labels.emotion.sum(1) == 1).all()
    assert (labels.emotion[:, EMOTIONS.index("contempt")] == 0).all()
    assert np.isnan([labels.age, labels.gender]).all()


def test_the_test_folder_is_the_holdout_and_a_part_of_train_the_selection(tmp_path: Path) -> None:
    names = [*(f"train/4/train_{i:05d}_aligned.webp" for i in range(60)), "test/4/test_0001_aligned.png"]
    main(config(tmp_path, {name: i for i, name in enumerate(names)}))
    found = splits(tmp_path)
    assert [id_ for id_, part in found.items() if part == "holdout"] == ["test/4/test_0001_aligned"]
    assert 0 < sum(part == "selection" for part in found.values()) < 10
    again = {face.id: face.split for face in collect(config(tmp_path, {"train/4/another.webp": 99})).faces}
    assert found.items() < again.items()


def test_the_test_folder_is_whole_and_nothing_in_it_is_trained_on(tmp_path: Path) -> None:
    pictures = {
        "test/1/a.webp": 1, "test/2/b.webp": 1, "train/1/c.webp": 1,
        "train/4/d.webp": 2, "train/4/e.png": 2, "train/5/f.webp": 3, "train/6/g.webp": 3,
    }  # fmt: skip
    card = main(config(tmp_path, pictures))
    assert splits(tmp_path) == {"test/1/a": "holdout", "test/2/b": "holdout", "train/4/d": "train"}
    assert "| same picture with different labels | 2 |" in card
    assert "| duplicate | 2 |" in card


def test_an_unknown_emotion_and_a_broken_picture_are_left_out(tmp_path: Path) -> None:
    made = config(tmp_path, {"train/4/a.webp": 1, "train/8/b.webp": 2, "train/4/c.webp": 3})
    (made.images / "train/4/c.webp").write_bytes(b"")
    main(made)
    rejected = pd.read_csv(tmp_path / "out/rejected.csv")
    assert rejected[["id", "reason"]].to_numpy().tolist() == [
        ["train/4/c", "unreadable image"],
        ["train/8/b", "unknown emotion"],
    ]


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    made = config(tmp_path, {"train/4/a.webp": 1})
    main(made)
    first = (tmp_path / "out/manifest.csv").stat().st_mtime_ns
    main(made)
    assert (tmp_path / "out/manifest.csv").stat().st_mtime_ns == first


def test_the_parent_folder_will_do_and_a_missing_one_names_the_remedy(tmp_path: Path) -> None:
    config(tmp_path, {"train/4/a.webp": 1})
    assert [face.id for face in collect(RafDbConfig(images=tmp_path, out=tmp_path / "out")).faces] == ["train/4/a"]
    with pytest.raises(DatasetError, match="pass the folder that holds RAF-DB's train"):
        main(RafDbConfig(images=tmp_path / "nowhere", out=tmp_path / "out"))


@pytest.mark.skipif(not REAL.is_dir(), reason="RAF-DB is not at hand")
def test_every_real_picture_is_found() -> None:
    found = collect(RafDbConfig(images=REAL, out=Path("unused")))
    assert len(found.faces) == 12_495
    assert not found.rejections
    assert sum(face.split == "holdout" for face in found.faces) == 1_508
