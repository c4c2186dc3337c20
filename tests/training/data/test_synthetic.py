"""Drawn faces: the same from the same seed, in FFHQ's layout, and different where their labels are."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.spec import AGE_GROUPS, EMOTIONS, GENDERS, age_group_index
from training.data.portrait.appearance import EXPRESSIONS, Appearance, Subject
from training.data.portrait.drawing import draw_face
from training.data.synthetic import Config, contact_sheet, sample_subject, synthesize, write_faces

NEUTRAL = {emotion: float(emotion == "neutral") for emotion in EMOTIONS}


def drawn(subject: Subject, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(draw_face(Appearance.of(subject, rng), rng), np.int16)


def digests(folder: Path) -> dict[str, str]:
    """Of every file of faces: the description differs, as it says the count."""
    files = sorted(folder.glob("*/*"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "faces"
    write_faces(Config(out=out, count=40, seed=3, workers=2))
    return out


def test_folder_has_the_layout_of_ffhq(faces: Path) -> None:
    assert sorted(p.name for p in (faces / "thumbnails128x128").iterdir()) == [f"{i:05d}.png" for i in range(40)]
    assert sorted(p.name for p in (faces / "json").iterdir()) == [f"{i:05d}.json" for i in range(40)]
    assert sorted(p.name for p in faces.iterdir()) == ["json", "synthetic.json", "thumbnails128x128"]


def test_pictures_are_canonical(faces: Path) -> None:
    for path in (faces / "thumbnails128x128").iterdir():
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (128, 128))


def test_annotations_have_the_format_of_ffhq_features(faces: Path) -> None:
    for path in (faces / "json").iterdir():
        [face] = json.loads(path.read_text())
        attributes, rectangle = face["faceAttributes"], face["faceRectangle"]
        assert attributes["gender"] in GENDERS
        assert isinstance(attributes["age"], float)
        assert attributes["age"].is_integer()
        assert 1 <= attributes["age"] <= 75
        assert tuple(attributes["emotion"]) == EMOTIONS
        assert sum(attributes["emotion"].values()) == pytest.approx(1, abs=1e-9)
        assert all(round(value, 3) == value >= 0 for value in attributes["emotion"].values())
        assert attributes["smile"] == attributes["emotion"]["happiness"]
        assert 0 <= rectangle["left"] < rectangle["left"] + rectangle["width"] <= 128
        assert 0 <= rectangle["top"] < rectangle["top"] + rectangle["height"] <= 128


def test_a_larger_count_only_adds_faces(faces: Path, tmp_path: Path) -> None:
    write_faces(Config(out=tmp_path / "faces", count=8, seed=3, workers=1))
    few, more = digests(tmp_path / "faces"), digests(faces)
    assert len(few) == 16
    assert few.items() <= more.items()


def test_a_folder_can_be_completed_and_repeated(tmp_path: Path) -> None:
    out = tmp_path / "faces"
    write_faces(Config(out=out, count=2, workers=1))
    write_faces(Config(out=out, count=4, workers=1))
    assert len(digests(out)) == 8
    before = digests(out)
    write_faces(Config(out=out, count=4, workers=1))
    assert digests(out) == before


def test_another_seed_gives_other_faces() -> None:
    (first, first_annotation), (second, second_annotation) = synthesize(0, 5), synthesize(1, 5)
    assert first.tobytes() != second.tobytes()
    assert first_annotation != second_annotation


@pytest.mark.parametrize("config", [{"seed": 4, "count": 40}, {"seed": 3, "count": 20}], ids=["seed", "count"])
def test_sets_are_not_mixed_in_one_folder(faces: Path, config: dict[str, int]) -> None:
    before = digests(faces)
    with pytest.raises(FileExistsError, match=r"holds 40 faces of seed 3; remove it or choose another --out"):
        write_faces(Config(out=faces, workers=1, **config))
    assert digests(faces) == before


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no synthetic faces"):
        write_faces(Config(out=tmp_path, count=2, workers=1))
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_few_hundred_faces_show_every_emotion_age_group_and_gender() -> None:
    subjects = [sample_subject(np.random.default_rng((0, index))) for index in range(300)]
    emotions = Counter(max(s.emotion, key=lambda name: s.emotion[name]) for s in subjects)
    assert set(emotions) == set(EMOTIONS)
    assert min(emotions.values()) >= 5
    groups = Counter(age_group_index(np.array([s.age for s in subjects], np.float64)).tolist())
    assert set(groups) == set(range(len(AGE_GROUPS)))
    assert min(Counter(s.gender for s in subjects).values()) > 120


def test_every_emotion_has_an_expression_of_its_own() -> None:
    assert set(EXPRESSIONS) == set(EMOTIONS)
    assert len(set(EXPRESSIONS.values())) == len(EMOTIONS)


@pytest.mark.parametrize("emotion", [name for name in EMOTIONS if name != "neutral"])
def test_an_emotion_changes_the_face_and_not_the_background(emotion: str) -> None:
    felt = {name: float(name == emotion) for name in EMOTIONS}
    difference = np.abs(drawn(Subject(30, "female", felt)) - drawn(Subject(30, "female", NEUTRAL))).max(2)
    assert (difference[30:110, 30:98] > 30).sum() > 100
    assert (difference[:6] > 30).sum() == 0


def test_an_emotion_is_seen_in_proportion_to_its_confidence() -> None:
    half = NEUTRAL | {"neutral": 0.5, "surprise": 0.5}
    whole = NEUTRAL | {"neutral": 0.0, "surprise": 1.0}
    rest, some, full = (drawn(Subject(30, "male", felt)) for felt in (NEUTRAL, half, whole))
    assert np.abs(some - rest).sum() < np.abs(full - rest).sum()


def test_age_changes_the_face_step_by_step() -> None:
    faces = {age: drawn(Subject(age, "female", NEUTRAL)) for age in (22, 30, 40, 50)}  # same hair styles to choose from
    steps = [np.abs(faces[age] - faces[22]).mean() for age in (30, 40, 50)]
    assert 0 < steps[0] < steps[1] < steps[2]


def test_gender_changes_the_face() -> None:
    woman, man = (drawn(Subject(40, gender, NEUTRAL)) for gender in GENDERS)
    assert (np.abs(woman - man).max(2) > 30).mean() > 0.05


def test_skin_pose_build_and_light_are_independent_of_the_labels() -> None:
    joyful = NEUTRAL | {"neutral": 0.0, "happiness": 1.0}
    child = Appearance.of(Subject(5, "female", joyful), np.random.default_rng(2))
    old = Appearance.of(Subject(70, "male", NEUTRAL), np.random.default_rng(2))
    for name in ("skin", "iris", "pose", "build", "clothes", "light", "light_strength"):
        assert getattr(child, name) == getattr(old, name), name
    assert child.youth > old.youth


def test_contact_sheet_shows_each_face_above_its_labels() -> None:
    sheet = contact_sheet(seed=0, count=3)
    assert sheet.size == (3 * 128, 128 + 14)
    assert np.array_equal(np.asarray(sheet)[:128, 128:256], np.asarray(synthesize(0, 1)[0]))
    assert len(np.unique(np.asarray(sheet)[128:, 128:256])) > 1
