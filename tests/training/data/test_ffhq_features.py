import json
from pathlib import Path
from typing import Any

import pytest

from training.data.ffhq_features import AnnotationError, read_annotation

EMOTION = {
    "anger": 0.0, "contempt": 0.1, "disgust": 0.0, "fear": 0.0,
    "happiness": 0.6, "neutral": 0.3, "sadness": 0.0, "surprise": 0.002,
}  # fmt: skip


def face(**changes: Any) -> dict[str, Any]:
    return {"faceAttributes": {"age": 31.0, "gender": "male", "emotion": EMOTION} | changes}


def written(tmp_path: Path, content: Any) -> Path:
    file = tmp_path / "00000.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_emotions_are_divided_by_their_sum(tmp_path: Path) -> None:
    labels = read_annotation(written(tmp_path, [face()]))
    assert (labels.age, labels.gender) == (31.0, 1.0)
    assert labels.emotion == pytest.approx([value / 1.002 for value in EMOTION.values()])


def test_of_two_faces_the_first_counts(tmp_path: Path) -> None:
    labels = read_annotation(written(tmp_path, [face(gender="female"), face(age=5)]))
    assert (labels.age, labels.gender) == (31.0, 0.0)


def test_an_age_of_zero_is_an_age(tmp_path: Path) -> None:
    assert read_annotation(written(tmp_path, [face(age=0)])).age == 0


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        ("", "broken JSON", "Expecting value"),
        ('[{"faceAttributes": ', "broken JSON", "Expecting value"),
        ("[" * 100_000, "broken JSON", "recursion"),
        ({"faceAttributes": {}}, "broken JSON", "not a list"),
        ([], "no face annotated", "empty"),
        ([None], "missing field", "faceAttributes"),
        ([{"faceAttributes": {"age": 3, "gender": "male"}}], "missing field", "emotion"),
        ([face(emotion={"anger": 1.0})], "missing field", "contempt"),
        ([face(emotion=dict.fromkeys(EMOTION, 0))], "value out of range", "sum to 0"),
        ([face(emotion=EMOTION | {"fear": float("nan")})], "value out of range", "fear is nan"),
        ([face(age=float("nan"))], "value out of range", "age is nan"),
        ([face(age=float("inf"))], "value out of range", "age is inf"),
        ([face(age=-1)], "value out of range", "age is -1"),
        ([face(age=10**400)], "value out of range", "age is 1000"),
        ([face(age="31")], "value out of range", "age is '31'"),
        ([face(age=True)], "value out of range", "age is True"),
        ([face(age=None)], "value out of range", "age is None"),
        ([face(gender="Male")], "value out of range", "gender is 'Male'"),
        ([face(gender=["male"])], "value out of range", "gender is ['male']"),
    ],
)
def test_an_unusable_annotation_says_why(tmp_path: Path, content: Any, reason: str, detail: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        read_annotation(written(tmp_path, content))
    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_bytes_that_are_no_text_are_broken_json(tmp_path: Path) -> None:
    (tmp_path / "00000.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(AnnotationError) as caught:
        read_annotation(tmp_path / "00000.json")
    assert caught.value.reason == "broken JSON"


def test_a_missing_file_is_an_unreadable_annotation(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError) as caught:
        read_annotation(tmp_path / "00000.json")
    assert caught.value.reason == "unreadable annotation"
