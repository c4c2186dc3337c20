"""Calibration against values worked out by hand, and against models whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest

from contract.samples import Labels
from contract.spec import Predictions
from evaluation.diagnosis.calibration import Calibration, Classifier, calibrate

NAN = float("nan")


def of_gender(probability_of_male: list[float], gender: list[float]) -> tuple[Predictions, Labels]:
    """Predictions and labels that know of gender only."""
    count = len(gender)
    missing, uniform = np.full((count, 8), NAN, np.float32), np.full((count, 8), 1 / 8, np.float32)
    age = np.full(count, 30, np.float32)
    labels = Labels(np.full(count, NAN, np.float32), np.array(gender, np.float32), missing)
    return Predictions(age, np.array(probability_of_male, np.float32), uniform), labels


def calibration_of(predictions: Predictions, labels: Labels, head: Classifier = "gender") -> Calibration:
    found = calibrate(predictions, labels, head, np.random.default_rng(0))
    assert found is not None
    return found


def test_the_error_is_the_mean_gap_of_the_bins_by_their_faces() -> None:
    # Confidences 0.9 twice (one is right), 0.7 (right) and 0.75 (wrong): the 14th, 11th and 12th of 15 bins.
    found = calibration_of(*of_gender([0.9, 0.1, 0.7, 0.25], [1, 1, 1, 1]))
    assert found.ece.value == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.7) + abs(0 - 0.75)) / 4)
    assert [(b.faces, b.accuracy.value) for b in found.bins] == [(1, 1.0), (1, 0.0), (2, 0.5)]
    assert [b.confidence for b in found.bins] == pytest.approx([0.7, 0.75, 0.9])
    assert (found.faces, found.accuracy.value, found.confidence) == pytest.approx((4, 0.5, 0.8125))


def test_the_brier_score_is_the_squared_distance_over_both_classes() -> None:
    found = calibration_of(*of_gender([0.9, 0.4], [1, 1]))
    assert found.brier.value == pytest.approx((2 * 0.1**2 + 2 * 0.6**2) / 2)


def test_the_confidence_of_a_gender_is_that_of_the_one_answered() -> None:
    found = calibration_of(*of_gender([0.05, 0.95], [0, 1]))
    assert (found.confidence, found.accuracy.value, len(found.bins)) == (pytest.approx(0.95), 1.0, 1)


def test_a_soft_emotion_counts_by_its_largest_share() -> None:
    predictions, labels = of_gender([0.5], [NAN])
    soft = np.array([[0.3, 0, 0, 0, 0.6, 0.1, 0, 0]], np.float32)
    answer = np.array([[0, 0, 0, 0, 0.8, 0.2, 0, 0]], np.float32)
    found = calibration_of(
        Predictions(predictions.age, predictions.gender, answer), Labels(labels.age, labels.gender, soft), "emotion"
    )
    assert found.ece.value == pytest.approx(0.2)
    assert found.brier.value == pytest.approx(2 * 0.2**2)


def test_faces_without_the_label_do_not_count_and_none_with_it_is_no_calibration() -> None:
    assert calibration_of(*of_gender([0.9, 0.9], [1, NAN])).faces == 1
    assert calibrate(*of_gender([0.9], [NAN]), "gender", np.random.default_rng(0)) is None


@pytest.mark.parametrize("overconfidence", [0.0, 0.15])
def test_a_calibrated_model_is_not_told_from_one_and_an_overconfident_one_is(overconfidence: float) -> None:
    rng = np.random.default_rng(1)
    intervals = []
    for _ in range(20):
        confidence = rng.uniform(0.7, 1, 1000)
        right = rng.random(1000) < confidence - overconfidence
        intervals.append(calibration_of(*of_gender(confidence.tolist(), right.astype(float).tolist())).ece)
    held = [interval.low <= overconfidence <= interval.high for interval in intervals]
    assert np.mean(held) >= 0.85
    assert all((interval.low > 0.05) == (overconfidence > 0) for interval in intervals)


def test_the_table_has_a_row_a_bin() -> None:
    table = calibration_of(*of_gender([0.9, 0.1, 0.7], [1, 1, 1])).to_frame()
    assert table["faces"].tolist() == [1, 2]
    assert set(table["head"]) == {"gender"}
    assert (table["confidence"] > table["low"]).all()
    assert (table["confidence"] <= table["high"]).all()
