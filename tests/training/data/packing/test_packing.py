from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.images import canonical_file
from contract.samples import COLUMNS, load_samples, read_manifest
from training.data.faces import DatasetError, LabelledFace, LabelledFaces, Rejection
from training.data.packing.pack import Duplicates, pack, write_labels

ONE_HAPPY = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def picture(file: Path, *, seed: int, side: int = 128) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def source(*faces: LabelledFace, rejections: tuple[Rejection, ...] = ()) -> LabelledFaces:
    return LabelledFaces("Test", faces, rejections, ["How it was split."])


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_row_i_of_the_images_is_row_i_of_the_manifest(tmp_path: Path) -> None:
    a, b = picture(tmp_path / "raw/a.png", seed=1), picture(tmp_path / "raw/b.png", seed=2, side=200)
    pack(
        source(LabelledFace("b", b, "holdout", 30, 1, ONE_HAPPY), LabelledFace("a", a, "holdout", 4)),
        tmp_path / "out",
        workers=1,
    )
    samples = load_samples(tmp_path / "out/manifest.csv")
    assert [path.resolve() for path in samples.paths] == [b, a]
    assert np.array_equal(next(samples.image_batches(2)), [canonical_file(b), canonical_file(a)])
    assert samples.labels.age.tolist() == [30, 4]


def test_a_label_that_is_lacking_is_empty_and_never_zero(tmp_path: Path) -> None:
    pack(source(LabelledFace("a", picture(tmp_path / "a.png", seed=1), "train", 4)), tmp_path / "out", workers=1)
    row = (tmp_path / "out/manifest.csv").read_text().splitlines()[1]
    assert row == "a,../a.png,4" + "," * 10 + "train"


def test_further_columns_follow_the_common_ones(tmp_path: Path) -> None:
    face = LabelledFace("a", picture(tmp_path / "a.png", seed=1), "train", extra={"race": "black"})
    card = pack(source(face), tmp_path / "out", workers=1)
    table = read_manifest(tmp_path / "out/manifest.csv")
    assert list(table.columns) == [*COLUMNS, "race"]
    assert "| race black | 1 | 1 |" in card


def test_an_unreadable_picture_is_left_out_and_listed(tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png", seed=1)
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:2000])
    faces = [LabelledFace(p.stem, p, "train") for p in (tmp_path / "broken.png", tmp_path / "gone.png", good)]
    card = pack(source(*faces, rejections=(Rejection("x", None, "no label"),)), tmp_path / "out", workers=1)
    rejected = pd.read_csv(tmp_path / "out/rejected.csv", keep_default_na=False)
    assert rejected[["id", "path", "reason"]].to_numpy().tolist() == [
        ["broken", "../broken.png", "unreadable image"],
        ["gone", "../gone.png", "unreadable image"],
        ["x", "", "no label"],
    ]
    assert "truncated" in rejected["detail"][0]
    assert read_manifest(tmp_path / "out/manifest.csv")["id"].tolist() == ["good"]
    assert "| unreadable image | 2 |" in card


def test_a_finished_folder_holds_nothing_unfinished(tmp_path: Path) -> None:
    pack(source(LabelledFace("a", picture(tmp_path / "a.png", seed=1), "train")), tmp_path / "out", workers=1)
    names = {"manifest.csv", "images.npy", "rejected.csv", "card.md", "inputs.sha256"}
    assert set(everything_in(tmp_path / "out")) == names


def test_the_same_inputs_are_not_packed_again(tmp_path: Path) -> None:
    faces = source(LabelledFace("a", picture(tmp_path / "a.png", seed=1), "train"))
    card = pack(faces, tmp_path / "out", workers=1)
    written = (tmp_path / "out/images.npy").stat().st_mtime_ns
    assert pack(faces, tmp_path / "out", workers=1) == card
    assert (tmp_path / "out/images.npy").stat().st_mtime_ns == written


def test_a_changed_picture_is_packed_again(tmp_path: Path) -> None:
    faces = source(LabelledFace("a", picture(tmp_path / "a.png", seed=1), "holdout"))
    pack(faces, tmp_path / "out", workers=1)
    picture(tmp_path / "a.png", seed=2, side=150)
    pack(faces, tmp_path / "out", workers=1)
    packed = next(load_samples(tmp_path / "out/manifest.csv").image_batches(1))
    assert np.array_equal(packed[0], canonical_file(tmp_path / "a.png"))


def test_no_usable_face_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"unreadable image 1 \(such as .*a\.png: .*not an image"):
        pack(source(LabelledFace("a", tmp_path / "a.png", "train")), tmp_path / "out", workers=1)
    with pytest.raises(DatasetError, match=r"broken JSON 1 .*check the folders"):
        pack(source(rejections=(Rejection("x", None, "broken JSON"),)), tmp_path / "out", workers=1)


def test_labels_alone_never_stand_beside_packed_images(tmp_path: Path) -> None:
    face = LabelledFace("a", picture(tmp_path / "a.png", seed=1), "train")
    pack(source(face), tmp_path / "out", workers=1)
    before = everything_in(tmp_path / "out")
    with pytest.raises(DatasetError, match="choose another"):
        write_labels(source(LabelledFace("a", None, "train", 4), LabelledFace("b", None, "train", 5)), tmp_path / "out")
    assert everything_in(tmp_path / "out") == before


def test_of_equal_pictures_the_most_held_out_stays(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png", seed=1)
    splits = {"a": "train", "b": "holdout", "c": "selection"}
    faces = [LabelledFace(name, tmp_path / f"{name}.png", split, 20, 1) for name, split in splits.items()]
    pack(source(*faces), tmp_path / "out", workers=1, drop=Duplicates(within=True))
    assert read_manifest(tmp_path / "out/manifest.csv")["id"].tolist() == ["b"]
    rejected = pd.read_csv(tmp_path / "out/rejected.csv")
    assert rejected[["id", "reason", "detail"]].to_numpy().tolist() == [
        ["a", "duplicate", "of b (holdout)"],
        ["c", "duplicate", "of b (holdout)"],
    ]


def test_equal_pictures_with_different_labels_are_all_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png", seed=1)
    other = LabelledFace("c", picture(tmp_path / "c.png", seed=3), "train", 7)
    faces = [
        LabelledFace("a", tmp_path / "a.png", "train", 20),
        LabelledFace("b", tmp_path / "b.png", "holdout", 30),
        other,
    ]
    card = pack(source(*faces), tmp_path / "out", workers=1, drop=Duplicates(within=True))
    assert read_manifest(tmp_path / "out/manifest.csv")["id"].tolist() == ["c"]
    assert "| same picture with different labels | 2 |" in card


def test_pictures_of_another_dataset_are_given_up(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", seed=1)
    Image.open(tmp_path / "a.png").save(tmp_path / "copy.bmp")  # another file, the same pixels
    pack(source(LabelledFace("a", tmp_path / "a.png", "train")), tmp_path / "first", workers=1)
    faces = source(
        LabelledFace("copy", tmp_path / "copy.bmp", "holdout"),
        LabelledFace("new", picture(tmp_path / "new.png", seed=2), "train"),
    )
    drop = Duplicates(of_manifests=(tmp_path / "first/manifest.csv",))
    card = pack(faces, tmp_path / "second", workers=1, drop=drop)
    assert read_manifest(tmp_path / "second/manifest.csv")["id"].tolist() == ["new"]
    assert "| duplicate in another dataset | 1 |" in card


def test_names_that_are_not_utf8_are_packed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    image, broken = picture(tmp_path / name, seed=1), tmp_path / os.fsdecode(b"bad\xff.png")
    broken.write_bytes(b"junk")
    faces = source(LabelledFace(name, image, "train", 4), LabelledFace("bad", broken, "train"))
    pack(faces, tmp_path / "out", workers=1)
    [path] = load_samples(tmp_path / "out/manifest.csv", "train").paths
    assert path.resolve() == image
    assert b"bad\xff.png" in (tmp_path / "out/rejected.csv").read_bytes()
