from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.samples import load_samples, read_manifest
from contract.spec import EMOTIONS
from training.data.faces import DatasetError
from training.data.ffhq import FfhqConfig, main
from training.data.packing.decoding import CHUNK_FACES

REPOSITORY = Path(__file__).parents[3]
REAL_ANNOTATIONS = REPOSITORY.parent / "shared/data/ffhq-features-json.tar.xz"


def write_face(root: Path, number: int, *, age: float = 30, thousands: bool = False, suffix: str = ".png") -> None:
    """A picture in thumbnails128x128 and its annotation in json, as FFHQ lays them out."""
    folder = f"{number // 1000 * 1000:05d}" if thousands else ""
    image = root / "thumbnails128x128" / folder / f"{number:05d}{suffix}"
    annotation = root / "json" / folder / f"{number:05d}.json"
    for file in (image, annotation):
        file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((140, 140)).save(image)
    emotion = dict.fromkeys(EMOTIONS, 0.0) | {"happiness": 0.7, "neutral": 0.3}
    face = {"faceAttributes": {"age": age, "gender": "female", "emotion": emotion}}
    annotation.write_text(json.dumps([face]))


def write_faces(root: Path, numbers: Sequence[int]) -> FfhqConfig:
    for number in numbers:
        write_face(root, number)
    return FfhqConfig(annotations=root, images=(root,), out=root / "out", workers=1)


def test_ids_at_the_published_borders_fall_on_the_right_side(tmp_path: Path) -> None:
    config = write_faces(tmp_path, [0, 56_999, 57_000, 59_999, 60_000, 69_999])
    write_face(tmp_path, 61_000, age=0)
    card = main(config)
    table = read_manifest(tmp_path / "out/manifest.csv")
    assert dict(zip(table["id"], table["split"], strict=True)) == {
        "00000": "train",
        "56999": "train",
        "57000": "selection",
        "59999": "selection",
        "60000": "holdout",
        "61000": "age_zero",
        "69999": "holdout",
    }
    assert "Split by the published ids" in card


def test_a_subset_is_split_by_hash_and_its_card_says_so(tmp_path: Path) -> None:
    card = main(write_faces(tmp_path, range(40)))
    first = read_manifest(tmp_path / "out/manifest.csv").set_index("id")["split"]
    assert set(first) == {"train", "selection", "holdout"}
    assert "Split by a hash of the id" in card
    assert "no id reaches 60000" in card
    main(write_faces(tmp_path, range(40, 60)))
    later = read_manifest(tmp_path / "out/manifest.csv").set_index("id")["split"]
    assert later[first.index].equals(first)


def test_a_subset_counts_by_its_pictures_not_by_its_annotations(tmp_path: Path) -> None:
    config = write_faces(tmp_path, [1, 60_001])
    (tmp_path / "thumbnails128x128/60001.png").unlink()
    assert "Split by a hash of the id" in main(config)


def test_split_by_and_fractions_are_options(tmp_path: Path) -> None:
    config = replace(write_faces(tmp_path, range(20)), split_by="hash", selection_fraction=0.0, holdout_fraction=0.9)
    main(config)
    assert set(read_manifest(tmp_path / "out/manifest.csv")["split"]) == {"train", "holdout"}
    card = main(replace(config, split_by="id"))
    assert set(read_manifest(tmp_path / "out/manifest.csv")["split"]) == {"train"}
    assert "No face for test" in card


def test_given_ids_split_and_the_card_says_so(tmp_path: Path) -> None:
    config = write_faces(tmp_path, [1, 10, 19, 20, 29, 30, 60_001])
    write_face(tmp_path, 15, age=0)
    card = main(replace(config, holdout_ids=("10-19", "30"), selection_ids=("20-29",)))
    table = read_manifest(tmp_path / "out/manifest.csv")
    assert dict(zip(table["id"], table["split"], strict=True)) == {
        "00001": "train",
        "00010": "holdout",
        "00015": "age_zero",
        "00019": "holdout",
        "00020": "selection",
        "00029": "selection",
        "00030": "holdout",
        "60001": "train",
    }
    assert "**Split by given ids (holdout 10-19, 30; selection 20-29; all others train)" in card


def test_given_ids_that_contradict_are_refused(tmp_path: Path) -> None:
    config = write_faces(tmp_path, [1, 2])
    with pytest.raises(DatasetError, match="the ids 1-5 and 5-9 overlap"):
        main(replace(config, holdout_ids=("1-5",), selection_ids=("5-9",)))
    with pytest.raises(DatasetError, match="'5-1' is no range of ids"):
        main(replace(config, selection_ids=("5-1",)))
    with pytest.raises(DatasetError, match="--split-by hash and given ids contradict each other; leave one out"):
        main(replace(config, holdout_ids=("1-5",), split_by="hash"))


def test_several_folders_and_formats_are_one_dataset_that_tells_them_apart(tmp_path: Path) -> None:
    for number, suffix in ((1, ".png"), (2, ".jpg"), (3, ".JPEG"), (4, ".webp")):
        write_face(tmp_path, number, suffix=suffix)
    for number in (2, 5):
        write_face(tmp_path / "more", number, suffix=".png")
    shutil.copytree(tmp_path / "more/json", tmp_path / "json", dirs_exist_ok=True)
    folders = (tmp_path, tmp_path / "more/thumbnails128x128")
    card = main(FfhqConfig(annotations=tmp_path, images=folders, out=tmp_path / "out", workers=1))
    table = read_manifest(tmp_path / "out/manifest.csv")
    assert dict(zip(table["id"], table["format"], strict=True)) == {
        "00001": "png",
        "00002": "jpeg",  # the first folder's
        "00003": "jpeg",
        "00004": "webp",
        "00005": "png",
    }
    assert "| format jpeg |" in card


@pytest.mark.parametrize(("thousands", "suffix"), [(False, ".webp"), (True, ".png"), (True, ".jpeg"), (False, ".JPG")])
@pytest.mark.parametrize("parent", [True, False])
def test_every_layout_people_have_is_read(tmp_path: Path, thousands: bool, suffix: str, parent: bool) -> None:
    for number in (5, 1_005):
        write_face(tmp_path, number, thousands=thousands, suffix=suffix)
    images, annotations = ("", "") if parent else ("thumbnails128x128", "json")
    main(FfhqConfig(annotations=tmp_path / annotations, images=(tmp_path / images,), out=tmp_path / "out", workers=1))
    table = read_manifest(tmp_path / "out/manifest.csv")
    assert table["id"].tolist() == ["00005", "01005"]
    assert all((tmp_path / "out" / path).is_file() for path in table["path"])
    assert table[list(EMOTIONS)].sum(axis=1).tolist() == pytest.approx([1, 1])


def test_what_cannot_be_used_is_left_out_by_reason_and_nothing_else(tmp_path: Path) -> None:
    config = write_faces(tmp_path, range(8))
    (tmp_path / "json/00001.json").write_text("[]")
    (tmp_path / "json/00002.json").write_text("[{")
    (tmp_path / "json/00003.json").unlink()
    (tmp_path / "thumbnails128x128/00004.png").unlink()
    (tmp_path / "thumbnails128x128/00005.png").write_bytes(b"")
    write_face(tmp_path, 6, age=-4)
    card = main(config)
    assert read_manifest(tmp_path / "out/manifest.csv")["id"].tolist() == ["00000", "00007"]
    rejected = pd.read_csv(tmp_path / "out/rejected.csv", dtype=str)
    assert rejected[["id", "path", "reason"]].to_numpy().tolist() == [
        ["00001", "../json/00001.json", "no face annotated"],
        ["00002", "../json/00002.json", "broken JSON"],
        ["00003", "../thumbnails128x128/00003.png", "missing annotation"],
        ["00004", "../json/00004.json", "missing image"],
        ["00005", "../thumbnails128x128/00005.png", "unreadable image"],
        ["00006", "../json/00006.json", "value out of range"],
    ]
    assert "2 faces, 6 left out" in card


def test_files_that_are_no_faces_are_ignored(tmp_path: Path) -> None:
    config = write_faces(tmp_path, [7])
    for name in ("._00007.png", "LICENSE.txt", "7.png", "000007.png"):
        (tmp_path / "thumbnails128x128" / name).write_bytes(b"x")
    assert "1 faces, 0 left out" in main(config)


def test_labels_only_counts_without_pictures(tmp_path: Path) -> None:
    config = write_faces(tmp_path, range(30))
    shutil.rmtree(tmp_path / "thumbnails128x128")
    assert "30 faces, 0 left out" in main(replace(config, images=(), labels_only=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["card.md", "manifest.csv", "rejected.csv"]


def test_a_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    config = write_faces(tmp_path, [1])
    with pytest.raises(DatasetError, match=r"nowhere is not a folder; pass the one that holds 00000\.json"):
        main(replace(config, annotations=tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"no file named like 00000\.png .* in .*json"):
        main(replace(config, images=(tmp_path / "json",)))
    with pytest.raises(DatasetError, match="--labels-only"):
        main(replace(config, images=()))


def command(root: Path, out: Path) -> list[str]:
    folders = ["--images", str(root), "--annotations", str(root), "--out", str(out), "--workers", "2"]
    return [sys.executable, "-m", "training.data.ffhq", *folders]


def test_an_error_is_one_line_on_standard_error(tmp_path: Path) -> None:
    ran = subprocess.run(command(tmp_path, tmp_path / "out"), cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("error: no file named like 00000.json")


@pytest.fixture(scope="module")
def many_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough pictures (links to one that takes milliseconds to decode) to be caught half-way; and `unbroken`."""
    root = tmp_path_factory.mktemp("many")
    write_face(root, 0)
    image, annotation = root / "thumbnails128x128/00000.png", root / "json/00000.json"
    Image.effect_noise((300, 300), 80).convert("RGB").save(image)
    for number in range(1, 12 * CHUNK_FACES):
        os.link(image, image.with_name(f"{number:05d}.png"))
        os.link(annotation, annotation.with_name(f"{number:05d}.json"))
    main(FfhqConfig(annotations=root, images=(root,), out=root / "unbroken", workers=1))
    return root


@pytest.mark.parametrize("signal_sent", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_continues_and_ends_in_the_same_bytes(many_faces: Path, signal_sent: signal.Signals) -> None:
    out = many_faces / signal_sent.name
    chunks = out / ".packing/chunks"
    said = many_faces / f"{signal_sent.name}.txt"
    with (
        said.open("w") as stream,
        subprocess.Popen(command(many_faces, out), cwd=REPOSITORY, stdout=stream, stderr=stream) as program,
    ):
        while not (finished := sorted(chunks.glob("0*.npz"))):
            assert program.poll() is None
            time.sleep(0.005)
        os.kill(program.pid, signal_sent)
    assert program.returncode == (-signal.SIGKILL if signal_sent == signal.SIGKILL else 130)
    assert not re.search("Warning|Traceback", said.read_text())
    assert len(list(chunks.glob("0*.npz"))) < 12
    assert not (out / "manifest.csv").exists()
    # That a finished chunk is not decoded again shows in a pixel which only the chunk has.
    invert_first_pixel(finished[0])
    main(FfhqConfig(annotations=many_faces, images=(many_faces,), out=out, workers=1))
    images, expected = (np.load(folder / "images.npy") for folder in (out, many_faces / "unbroken"))
    expected[int(finished[0].stem), 0, 0] ^= 255
    assert np.array_equal(images, expected)
    for name in ("manifest.csv", "rejected.csv", "card.md", "inputs.sha256"):
        assert (out / name).read_bytes() == (many_faces / "unbroken" / name).read_bytes()


def invert_first_pixel(chunk: Path) -> None:
    arrays = dict(np.load(chunk))
    arrays["images"][0, 0, 0] ^= 255
    np.savez(chunk, **arrays)


def test_a_damaged_chunk_is_decoded_again(tmp_path: Path) -> None:
    config = write_faces(tmp_path, range(3))
    main(config)
    whole = (tmp_path / "out/images.npy").read_bytes()
    fingerprint = (tmp_path / "out/inputs.sha256").read_text()
    shutil.rmtree(tmp_path / "out")
    chunks = tmp_path / "out/.packing/chunks"
    chunks.mkdir(parents=True)
    (chunks / "inputs.sha256").write_text(fingerprint)
    (chunks / "00000000.npz").write_bytes(b"PK\x03\x04 cut short")
    main(config)
    assert (tmp_path / "out/images.npy").read_bytes() == whole


def test_the_files_of_a_dataset_can_be_loaded(tmp_path: Path) -> None:
    main(write_faces(tmp_path, [3, 60_003]))
    samples = load_samples(tmp_path / "out/manifest.csv", "test", "published")
    assert len(samples) == 2
    assert samples.labels.gender.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.skipif(not REAL_ANNOTATIONS.exists(), reason="the 70,000 real annotations are not at hand")
def test_the_real_annotations_give_the_published_counts(tmp_path: Path) -> None:
    # Not in tmp_path, which outlives the test: 70,000 files.
    with tempfile.TemporaryDirectory() as folder, tarfile.open(REAL_ANNOTATIONS) as archive:
        archive.extractall(folder, filter="data")
        card = main(FfhqConfig(annotations=Path(folder), out=tmp_path / "out", labels_only=True, workers=2))
    for row in (
        "| published | train | train, selection | 58,331 |",
        "| published | selection | holdout | 9,735 |",
        "| published | test | train, selection, holdout, age_zero | 69,471 |",
        "| always 29 years old | MAE 11.82 years |",
        "| always female | 56.29% |",
        "| always happiness | 62.21% |",
        "| no face annotated | 529 |",
    ):
        assert row in card
    groups = [line.replace(",", "").split(" | ") for line in card.splitlines() if line.startswith("| age ")]
    holdout, everyone = [int(cells[3]) for cells in groups], [int(cells[5].split()[0]) for cells in groups]
    assert holdout == [1217, 848, 2953, 2399, 1242, 698, 331, 47]
    assert everyone == [9750, 5974, 19991, 16440, 9071, 5409, 2460, 376]
    table = read_manifest(tmp_path / "out/manifest.csv")
    emotions = table.loc[table["split"] == "holdout", list(EMOTIONS)].idxmax(axis=1).value_counts()
    assert emotions.to_dict() == {
        "happiness": 6056, "neutral": 3399, "surprise": 107, "sadness": 92,
        "anger": 44, "contempt": 20, "disgust": 13, "fear": 4,
    }  # fmt: skip
