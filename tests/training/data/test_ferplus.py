from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.samples import load_samples, read_manifest
from contract.spec import EMOTIONS
from training.data.faces import DatasetError
from training.data.ferplus import VOTES_NAME, FerPlusConfig, collect, main

REAL = Path(__file__).parents[2] / "data/ferplus"
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
HAPPY = "0,10,0,0,0,0,0,0,0,0"


def write_picture(file: Path, *, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)
    Image.fromarray(pixels).save(file, lossless=True)


def config(tmp_path: Path, rows: Sequence[tuple[str, str, str]], *, suffix: str = ".webp") -> FerPlusConfig:
    """Rows of usage, image name and votes; a picture each where there is a name."""
    root = tmp_path / "ferplus"
    for seed, (usage, name, _) in enumerate(rows):
        if name and usage in FOLDERS:
            write_picture((root / FOLDERS[usage] / name).with_suffix(suffix), seed=seed)
    root.mkdir(exist_ok=True)
    (root / VOTES_NAME).write_text("\n".join([HEADER, *(",".join(row) for row in rows)]) + "\n")
    return FerPlusConfig(images=root, out=tmp_path / "out", workers=1)


def rejected(tmp_path: Path) -> dict[str, str]:
    table = pd.read_csv(tmp_path / "out/rejected.csv")
    return dict(zip(table["id"], table["reason"], strict=True))


def splits(tmp_path: Path) -> dict[str, str]:
    table = read_manifest(tmp_path / "out/manifest.csv")
    return dict(zip(table["id"], table["split"], strict=True))


def test_an_emotion_s_confidence_is_its_share_of_the_votes_for_the_eight(tmp_path: Path) -> None:
    main(config(tmp_path, [("PrivateTest", "fer0000001.png", "1,0,4,0,0,0,2,1,1,1")]))
    labels = load_samples(tmp_path / "out/manifest.csv").labels
    found = dict(zip(EMOTIONS, labels.emotion[0].tolist(), strict=True))
    assert found == dict.fromkeys(EMOTIONS, 0) | {
        "neutral": 0.125,
        "surprise": 0.5,
        "fear": 0.25,
        "contempt": 0.125,
    }
    assert np.isnan([labels.age, labels.gender]).all()


def test_the_published_split_is_kept(tmp_path: Path) -> None:
    main(config(tmp_path, [(usage, "fer0000001.png", HAPPY) for usage in FOLDERS]))
    assert splits(tmp_path) == {
        "FER2013Train/fer0000001": "train",
        "FER2013Valid/fer0000001": "selection",
        "FER2013Test/fer0000001": "holdout",
    }


def test_faces_that_most_voters_found_none_are_left_out(tmp_path: Path) -> None:
    rows = [
        ("Training", "fer0000000.png", HAPPY),
        ("Training", "", "0,0,0,0,0,0,0,0,0,10"),
        ("Training", "fer0000002.png", "2,2,0,0,0,0,0,0,5,1"),
        ("Training", "fer0000003.png", "3,0,0,0,0,0,0,0,3,4"),
        ("Training", "fer0000004.png", "4,1,0,0,0,0,0,0,4,1"),  # level with an emotion: it stays
    ]
    card = main(config(tmp_path, rows))
    assert list(splits(tmp_path)) == ["FER2013Train/fer0000000", "FER2013Train/fer0000004"]
    assert rejected(tmp_path) == {
        "row 1": "no image name",
        "FER2013Train/fer0000002": "most votes unknown",
        "FER2013Train/fer0000003": "most votes not a face",
    }
    assert "Barsoum et al. 2016" in card
    assert "argmax of the eight votes" in card


@pytest.mark.parametrize(
    ("votes", "agreement"),
    [
        (HAPPY, "majority"),
        ("5,5,0,0,0,0,0,0,0,0", "no majority"),
        ("5,1,1,1,1,1,0,0,0,0", "majority"),  # single votes do not count: 5 of 5
        ("4,3,0,0,0,0,0,0,2,0", "no majority"),
        ("1,1,1,1,1,1,1,1,1,1", "no majority"),
    ],
)
def test_the_faces_that_ferplus_itself_tests_on_are_marked(tmp_path: Path, votes: str, agreement: str) -> None:
    main(config(tmp_path, [("Training", "fer0000000.png", votes)]))
    assert read_manifest(tmp_path / "out/manifest.csv")["agreement"].tolist() == [agreement]


def test_what_cannot_be_used_is_left_out_by_reason(tmp_path: Path) -> None:
    rows = [
        ("Training", "fer0000000.png", HAPPY),
        ("Training", "fer0000000.png", HAPPY),
        ("Testing", "fer0000002.png", HAPPY),
        ("Training", "fer0000003.png", "0,x,0,0,0,0,0,0,0,0"),
        ("Training", "fer0000004.png", "0,0,0,0,0,0,0,0,0,0"),
        ("Training", "fer0000005.png", HAPPY),
        ("Training", "fer0000006.png", HAPPY),
        ("Training", "fer0000007.png", "1,9"),
    ]
    made = config(tmp_path, rows)
    (made.images / "FER2013Train/fer0000005.webp").unlink()
    (made.images / "FER2013Train/fer0000006.webp").write_bytes(b"")
    write_picture(made.images / "FER2013Valid/fer0000009.png", seed=9)
    main(made)
    assert list(splits(tmp_path)) == ["FER2013Train/fer0000000"]
    assert rejected(tmp_path) == {
        "FER2013Train/fer0000000": "repeated row",
        "row 2": "unknown usage",
        "FER2013Train/fer0000003": "malformed votes",
        "FER2013Train/fer0000004": "malformed votes",
        "FER2013Train/fer0000005": "missing image",
        "FER2013Train/fer0000006": "unreadable image",
        "FER2013Train/fer0000007": "malformed votes",
        "FER2013Valid/fer0000009": "missing votes",
    }


def test_the_test_part_is_whole_and_nothing_in_it_is_trained_or_selected_on(tmp_path: Path) -> None:
    rows = [("PrivateTest", "a.png", HAPPY), ("PrivateTest", "b.png", HAPPY), ("Training", "c.png", HAPPY)]
    made = config(tmp_path, [*rows, ("PublicTest", "d.png", HAPPY)])
    for name in ("Test/b", "Train/c"):
        write_picture(made.images / f"FER2013{name}.webp", seed=0)
    main(made)
    assert splits(tmp_path) == {
        "FER2013Test/a": "holdout",
        "FER2013Test/b": "holdout",
        "FER2013Valid/d": "selection",
    }


def test_a_second_run_changes_nothing_and_a_new_vote_is_seen(tmp_path: Path) -> None:
    made = config(tmp_path, [("Training", "a.png", HAPPY)])
    main(made)
    first = (tmp_path / "out/manifest.csv").stat().st_mtime_ns
    main(made)
    assert (tmp_path / "out/manifest.csv").stat().st_mtime_ns == first
    main(config(tmp_path, [("Training", "a.png", "10,0,0,0,0,0,0,0,0,0")]))
    assert read_manifest(tmp_path / "out/manifest.csv")["neutral"].tolist() == [1]


def test_the_parent_folder_png_pictures_and_votes_elsewhere_will_do(tmp_path: Path) -> None:
    made = config(tmp_path, [("Training", "a.png", HAPPY)], suffix=".png")
    votes = (made.images / VOTES_NAME).rename(tmp_path / "votes.csv")
    found = collect(FerPlusConfig(images=tmp_path, out=tmp_path / "out", votes=votes))
    assert [face.id for face in found.faces] == ["FER2013Train/a"]


def test_what_is_missing_is_named_with_the_remedy(tmp_path: Path) -> None:
    made = config(tmp_path, [("Training", "a.png", HAPPY)])
    with pytest.raises(DatasetError, match=r"no folder FER2013Train in .*; pass the one that holds it"):
        main(FerPlusConfig(images=tmp_path / "nowhere", out=tmp_path / "out"))
    (made.images / VOTES_NAME).write_text("Usage,emotion,pixels\n")
    with pytest.raises(DatasetError, match="lacks the columns Image name, "):
        main(made)
    (made.images / VOTES_NAME).unlink()
    with pytest.raises(DatasetError, match=r"does not exist; pass FER\+'s fer2013new\.csv as --votes"):
        main(made)


@pytest.mark.skipif(not REAL.is_dir(), reason="FER+ is not at hand")
def test_every_real_picture_is_found_or_left_out_by_the_protocol() -> None:
    found = collect(FerPlusConfig(images=REAL, out=Path("unused")))
    left_out = {r.reason for r in found.rejections if r.path is not None}
    assert len(found.faces) + sum(r.path is not None for r in found.rejections) == 33_960  # three rows are there twice
    assert left_out == {"most votes unknown", "most votes not a face", "repeated row"}
    assert sum(face.split == "holdout" for face in found.faces) == 1_805
