"""Manifests, packed images, protocols; and every way in which a dataset folder can be broken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from contract.samples import (
    COLUMNS,
    PARTS,
    ROLES,
    ManifestError,
    Protocol,
    Role,
    labels_of,
    load_samples,
    map_images,
    read_manifest,
    write_manifest,
)
from contract.spec import EMOTIONS
from tests.datasets import WriteDataset

MIXED = ("train", "holdout", "train", "selection", "age_zero", "holdout", "train")


def rows_of(manifest: Path, role: Role, protocol: Protocol) -> list[int]:
    return load_samples(manifest, role, protocol).labels.age.astype(int).tolist()


def test_holdout_trains_selects_and_tests_on_different_faces(write_dataset: WriteDataset) -> None:
    manifest = write_dataset(*MIXED)
    assert rows_of(manifest, "train", "holdout") == [0, 2, 6]
    assert rows_of(manifest, "selection", "holdout") == [3]
    assert rows_of(manifest, "test", "holdout") == [1, 5]


def test_published_selects_on_the_holdout_and_tests_on_everything(write_dataset: WriteDataset) -> None:
    manifest = write_dataset(*MIXED)
    assert rows_of(manifest, "train", "published") == [0, 2, 3, 6]
    assert rows_of(manifest, "selection", "published") == [1, 5]
    assert rows_of(manifest, "test", "published") == list(range(7))


def test_no_protocol_trains_on_what_it_selects_on_and_holdout_never_tests_on_either() -> None:
    assert set(ROLES) == set(get_args(Protocol))
    for roles in ROLES.values():
        assert set(roles) == set(get_args(Role))
        assert not set(roles["train"]) & set(roles["selection"])
        assert set().union(*roles.values()) <= set(PARTS)
    holdout = ROLES["holdout"]
    assert not set(holdout["test"]) & {*holdout["train"], *holdout["selection"]}


def test_images_belong_to_their_labels(write_dataset: WriteDataset) -> None:
    samples = load_samples(write_dataset(*MIXED), "train")
    batches = list(samples.image_batches(2))
    assert [len(batch) for batch in batches] == [2, 1]
    assert {batch.dtype for batch in batches} == {np.dtype(np.uint8)}
    assert np.concatenate(batches)[:, 0, 0, 0].tolist() == samples.labels.age.tolist() == [0, 2, 6]


def test_taking_some_samples_keeps_images_labels_and_paths_together(write_dataset: WriteDataset) -> None:
    samples = load_samples(write_dataset(*MIXED), "test", "published")
    for taken, rows in ((samples.take(slice(1, 3)), [1, 2]), (samples.take(np.array([6, 0])), [6, 0])):
        assert len(taken) == 2
        assert next(taken.image_batches(8))[:, 0, 0, 0].tolist() == rows
        assert taken.labels.age.tolist() == rows
        assert [path.stem for path in taken.paths] == [f"{row:05d}" for row in rows]


def test_a_sample_is_one_face(write_dataset: WriteDataset) -> None:
    manifest = write_dataset(*MIXED)
    sample = load_samples(manifest, "test")[1]
    assert sample.path == manifest.parent / "thumbnails128x128" / "00005.png"
    assert (sample.age, sample.gender) == (5, 1)
    assert EMOTIONS[int(sample.emotion.argmax())] == "neutral"


def test_packed_images_are_mapped_and_cannot_be_changed(write_dataset: WriteDataset) -> None:
    packed = load_samples(write_dataset(*MIXED)).packed
    assert isinstance(packed, np.memmap)
    assert not packed.flags.writeable


def test_labels_are_float32_and_empty_fields_are_nan(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("train", "train", "train")
    table = read_manifest(manifest)
    table.loc[1, ["age", *EMOTIONS]] = np.nan
    write_manifest(table, manifest)
    labels = labels_of(read_manifest(manifest))
    assert {a.dtype for a in (labels.age, labels.gender, labels.emotion)} == {np.dtype(np.float32)}
    assert np.isnan(labels.age).tolist() == [False, True, False]
    assert np.isnan(labels.emotion).all(1).tolist() == [False, True, False]
    assert labels.gender.tolist() == [0, 1, 0]
    assert labels[1:].age[1] == 2


def test_a_dataset_without_a_label_is_read(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("holdout", "holdout")
    table = read_manifest(manifest)
    table[["gender", *EMOTIONS]] = np.nan
    write_manifest(table, manifest)
    labels = load_samples(manifest).labels
    assert np.isnan(labels.gender).all()
    assert labels.age.tolist() == [0, 1]


def test_ids_keep_their_leading_zeros(write_dataset: WriteDataset) -> None:
    assert read_manifest(write_dataset("train", "holdout"))["id"].tolist() == ["00000", "00001"]


def test_a_manifest_is_written_with_its_columns_in_order_and_others_after_them(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("train")
    table = read_manifest(manifest)
    table.insert(0, "race", "other")
    write_manifest(table[reversed(table.columns)], manifest)
    assert tuple(pd.read_csv(manifest).columns) == (*COLUMNS, "race")


def test_a_failed_write_keeps_the_old_manifest(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("train")
    before = manifest.read_bytes()
    with pytest.raises(KeyError, match="split"):
        write_manifest(read_manifest(manifest).drop(columns="split"), manifest)
    assert manifest.read_bytes() == before


# Every ManifestError


def test_a_missing_manifest_names_the_program_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.csv does not exist; make it with make data"):
        load_samples(tmp_path / "manifest.csv")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00\x80 not text", b"id,path\n1,2,3\n1,2,3,4\n"],
    ids=["empty", "not text", "ragged"],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=r"manifest\.csv (is not a manifest|lacks the columns)"):
        read_manifest(tmp_path / "manifest.csv")


def test_text_in_a_label_column_is_refused(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("train")
    manifest.write_text(manifest.read_text().replace(".png,0.0,", ".png,young,"))
    with pytest.raises(ManifestError, match=r"is not a manifest: could not convert string to float: 'young'"):
        read_manifest(manifest)


def test_missing_columns_are_named(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("train")
    read_manifest(manifest).drop(columns=["gender", "fear"]).to_csv(manifest, index=False)
    with pytest.raises(ManifestError, match="lacks the columns gender, fear; make it again"):
        read_manifest(manifest)


def test_unknown_splits_are_named(write_dataset: WriteDataset) -> None:
    with pytest.raises(ManifestError, match="unknown splits dev, val; known are train, selection, holdout, age_zero"):
        read_manifest(write_dataset("train", "val", "dev"))


def test_a_role_without_faces_is_an_error_that_names_what_was_looked_for(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("train", "age_zero")
    with pytest.raises(ManifestError, match=r"no face for test in protocol holdout \(split holdout\)"):
        load_samples(manifest)


def test_missing_packed_images_are_an_error(write_dataset: WriteDataset) -> None:
    manifest = write_dataset("train")
    manifest.with_name("images.npy").unlink()
    with pytest.raises(ManifestError, match=r"images\.npy does not exist; make it again"):
        load_samples(manifest, "train")


@pytest.mark.parametrize("content", [b"", b"not an array", b"PK\x03\x04 a zip file"], ids=["empty", "text", "zip"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.npy").write_bytes(content)
    with pytest.raises(ManifestError, match=r"images\.npy is not a packed image file"):
        map_images(tmp_path / "images.npy", 1)


def test_truncated_packed_images_are_refused(write_dataset: WriteDataset) -> None:
    path = write_dataset("train", "train").with_name("images.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"images\.npy is not a packed image file"):
        map_images(path, 2)


def test_pickled_arrays_are_refused_unread(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.array([{"code": "runs"}], object), allow_pickle=True)
    with pytest.raises(ManifestError, match="is not a packed image file"):
        map_images(tmp_path / "images.npy", 1)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 128, 128, 3), np.uint8),
        np.zeros((2, 3, 128, 128), np.uint8),
        np.zeros((2, 128, 128, 3), np.float32),
    ],
    ids=["another count", "channels first", "float"],
)
def test_packed_images_of_another_run_are_refused(write_dataset: WriteDataset, images: np.ndarray) -> None:
    manifest = write_dataset("train", "train")
    np.save(manifest.with_name("images.npy"), images)
    with pytest.raises(ManifestError, match=r"needs uint8 \[2, 128, 128, 3\]; the two are from different runs"):
        load_samples(manifest, "train")


def test_names_that_are_not_utf8_are_kept_byte_for_byte(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    row = {
        "id": name,
        "path": f"raw/{name}",
        "age": 3.0,
        "gender": 1.0,
        "split": "holdout",
        **dict.fromkeys(EMOTIONS, 0.125),
    }
    write_manifest(pd.DataFrame([row]), tmp_path / "manifest.csv")
    assert b"raw/caf\xe9.png" in (tmp_path / "manifest.csv").read_bytes()
    assert read_manifest(tmp_path / "manifest.csv")["path"].tolist() == [f"raw/{name}"]
