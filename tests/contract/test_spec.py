"""Names, types, dims and label orders that every other place follows."""

from __future__ import annotations

import numpy as np
import pytest

from contract.spec import (
    AGE,
    AGE_GROUPS,
    EMOTION,
    EMOTIONS,
    ENCODED_IMAGE,
    GENDER,
    GENDERS,
    IMAGE,
    MAX_BATCH_SIZE,
    OUTPUTS,
    Predictions,
    age_group_index,
    check_images,
)


def predictions(count: int, start: int = 0) -> Predictions:
    ages = np.arange(start, start + count, dtype=np.float32)
    emotion = np.tile(np.full(8, 0.125, np.float32), (count, 1))
    return Predictions(ages, ages / 100, emotion)


def test_tensors_are_what_the_design_says() -> None:
    assert str(IMAGE) == "image UINT8 [128, 128, 3]"
    assert [str(tensor) for tensor in OUTPUTS] == ["age FP32 [1]", "gender FP32 [1]", "emotion FP32 [8]"]
    assert OUTPUTS == (AGE, GENDER, EMOTION)


def test_label_orders_are_those_of_ffhq_features() -> None:
    assert EMOTIONS == ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    assert GENDERS == ("female", "male")
    assert len(AGE_GROUPS) == 8


def test_triton_types_have_their_numpy_types() -> None:
    assert IMAGE.numpy_dtype == np.uint8
    assert AGE.numpy_dtype == np.float32
    assert ENCODED_IMAGE.numpy_dtype == np.object_


def test_a_full_batch_is_a_power_of_two() -> None:  # the engine's profile and CUDA graphs are made for such sizes
    assert MAX_BATCH_SIZE & (MAX_BATCH_SIZE - 1) == 0


@pytest.mark.parametrize(
    ("age", "group"),
    [
        (0, "0-9"), (1, "0-9"), (9, "0-9"), (9.99, "0-9"), (10, "10-19"), (19.9, "10-19"), (20, "20-29"),
        (59.5, "50-59"), (60, "60-69"), (69.99, "60-69"), (70, "70+"), (79, "70+"), (80, "70+"), (116, "70+"),
    ],
)  # fmt: skip
def test_age_groups_are_half_open_decades(age: float, group: str) -> None:
    assert AGE_GROUPS[age_group_index(np.array([age]))[0]] == group


def test_predictions_come_from_outputs_with_or_without_a_trailing_one() -> None:
    emotion = np.eye(8, dtype=np.float64)[:3]
    for dims in ((3, 1), (3,)):
        outputs = {"age": np.arange(3.0).reshape(dims), "gender": np.ones(dims), "emotion": emotion}
        found = Predictions.from_outputs(outputs)
        assert len(found) == 3
        assert found.age.tolist() == [0, 1, 2]
        assert found.emotion.tolist() == emotion.tolist()
        assert {a.dtype for a in (found.age, found.gender, found.emotion)} == {np.dtype(np.float32)}


def test_outputs_of_different_lengths_are_refused() -> None:
    outputs = {"age": np.zeros((3, 1)), "gender": np.zeros((2, 1)), "emotion": np.zeros((3, 8))}
    with pytest.raises(ValueError, match=r"shapes \(\(3,\), \(3,\), \(3, 8\)\), got \(\(3,\), \(2,\), \(3, 8\)\)"):
        Predictions.from_outputs(outputs)


def test_a_missing_output_is_named() -> None:
    with pytest.raises(KeyError, match="emotion"):
        Predictions.from_outputs({"age": np.zeros((1, 1)), "gender": np.zeros((1, 1))})


def test_concatenation_keeps_the_order() -> None:
    joined = Predictions.concatenate([predictions(2), predictions(1, 2), predictions(4, 3)])
    assert joined.age.tolist() == list(range(7))
    assert joined.gender == pytest.approx(np.arange(7) / 100)
    assert joined.emotion.shape == (7, 8)


def test_faces_with_any_output_not_finite_are_counted_once() -> None:
    found = predictions(5)
    found.age[1] = np.nan
    found.emotion[1, 3] = np.inf
    found.gender[4] = -np.inf
    assert found.not_finite() == 2
    assert predictions(5).not_finite() == 0


def test_a_canonical_batch_passes_unchanged() -> None:
    images = np.zeros((2, 128, 128, 3), np.uint8)
    assert check_images(images) is images
    assert len(check_images(images[:0])) == 0


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((128, 128, 3), np.uint8),
        np.zeros((1, 3, 128, 128), np.uint8),
        np.zeros((1, 224, 224, 3), np.uint8),
        np.zeros((1, 128, 128, 3), np.float32),
        np.zeros((1, 128, 128, 4), np.uint8),
    ],
    ids=["no batch", "channels first", "network's size", "float", "alpha"],
)
def test_any_other_batch_is_refused_with_the_remedy(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expects images uint8 \[N, 128, 128, 3\]; got .*contract\.images\.canonical"):
        check_images(images)
