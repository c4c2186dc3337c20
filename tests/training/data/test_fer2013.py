from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.samples import load_samples, read_manifest
from contract.spec import EMOTIONS
from training.data.faces import DatasetError
from training.data.fer2013 import Fer2013Config, collect, main

REAL = Path(__file__).parents[3] / "data/fer2013"


def config(tmp_path: Path, pictures: dict[str, int]) -> Fer2013Config:
    """Small grey pictures at these paths; equal numbers are equal pictures."""
    for name, seed in pictures.items():
        file = tmp_path / "fer2013" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)).save(file, lossless=True)
    return Fer2013Config(images=tmp_path / "fer2013", out=tmp_path / "out", workers=1)


def splits(tmp_path: Path) -> dict[str, str]:
    table = read_manifest(tmp_path / "out/manifest.csv")
    return dict(zip(table["id"], table["split"], strict=True))


def test_each_class_is_one_emotion_and_contempt_is_none(tmp_path: Path) -> None:
    classes = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    main(config(tmp_path, {f"test/{name}/{i}.png": i for i, name in enumerate(classes)}))
    labels = load_samples(tmp_path / "out/manifest.csv").labels
    found = [EMOTIONS[i] for i in labels.emotion.argmax(1)]
    assert found == ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
    assert (labels.emotion.sum(1) == 1).all()
    assert (labels.emotion[:, EMOTIONS.index("contempt")] == 0).all()
    assert np.isnan([labels.age, labels.gender]).all()


def test_the_published_split_is_kept(tmp_path: Path) -> None:
    names = ["train/sad/Training_1.png", "validation/sad/PublicTest_2.webp", "test/sad/PrivateTest_3.png",
             "test/happy/PublicTest_4.png"]  # fmt: skip
    main(config(tmp_path, {name: i for i, name in enumerate(names)}))
    assert splits(tmp_path) == {
        "train/sad/Training_1": "train",
        "validation/sad/PublicTest_2": "selection",
        "test/sad/PrivateTest_3": "holdout",
        "test/happy/PublicTest_4": "selection",
    }


def test_the_test_folder_is_whole_and_nothing_in_it_is_trained_or_selected_on(tmp_path: Path) -> None:
    pictures = {
        "test/sad/a.png": 1, "test/fear/b.png": 1, "test/happy/c.png": 2,
        "validation/sad/d.png": 1, "validation/happy/e.png": 3,
        "train/fear/f.png": 1, "train/happy/g.png": 2, "train/happy/h.png": 3, "train/happy/i.png": 4,
    }  # fmt: skip
    main(config(tmp_path, pictures))
    assert splits(tmp_path) == {
        "test/sad/a": "holdout",
        "test/fear/b": "holdout",
        "test/happy/c": "holdout",
        "validation/happy/e": "selection",
        "train/happy/i": "train",
    }


def test_a_picture_trained_on_under_two_emotions_is_left_out(tmp_path: Path) -> None:
    card = main(config(tmp_path, {"train/sad/a.png": 1, "train/fear/b.png": 1, "test/sad/c.png": 2}))
    assert "| same picture with different labels | 2 |" in card
    assert splits(tmp_path) == {"test/sad/c": "holdout"}


def test_an_unknown_class_is_left_out(tmp_path: Path) -> None:
    main(config(tmp_path, {"train/sad/a.png": 1, "train/bored/b.png": 2}))
    rejected = pd.read_csv(tmp_path / "out/rejected.csv")
    assert rejected[["id", "reason"]].to_numpy().tolist() == [["train/bored/b", "unknown emotion"]]


def test_the_parent_folder_will_do(tmp_path: Path) -> None:
    made = config(tmp_path, {"train/sad/a.png": 1})
    assert [face.id for face in collect(made.images.parent).faces] == ["train/sad/a"]


def test_a_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="pass the one that holds FER2013"):
        main(Fer2013Config(images=tmp_path / "nowhere", out=tmp_path / "out"))


@pytest.mark.skipif(not REAL.is_dir(), reason="FER2013 is not at hand")
def test_every_real_picture_is_found() -> None:
    found = collect(REAL)
    assert len(found.faces) == 32_166
    assert not found.rejections
    assert sum(face.split == "holdout" for face in found.faces) == 3_223
