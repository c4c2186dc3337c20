"""The evaluation against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contract.samples import Labels
from contract.spec import AGE_GROUPS, EMOTIONS, Predictions
from evaluation.metrics import METRICS, GroupMetrics, Report, baselines_of, score
from tests.datasets import random_faces

NAN = float("nan")
FEMALE, MALE = 0.0, 1.0

# Of each face: age, gender, emotion as labelled, then as predicted.
FACES = [
    (4, FEMALE, "happiness", 6, 0.40, "happiness"),
    (9, MALE, "neutral", 9, 0.50, "happiness"),
    (10, MALE, "happiness", 16, 0.49, "happiness"),
    (69, FEMALE, "sadness", 60, 0.90, "sadness"),
    (70, FEMALE, "happiness", 71, 0.10, "neutral"),
    (NAN, MALE, "neutral", 30, 0.80, "neutral"),
    (75, NAN, "happiness", 70, 0.20, "happiness"),
    (12, FEMALE, None, 10, 0.00, "fear"),
]


def confidences(emotions: list[str | None]) -> np.ndarray:
    """0.4 for the emotion and 0.6 shared by the others, so that only the largest counts; NaN for None."""
    rows = [np.where(np.array(EMOTIONS) == name, 0.4, 0.6 / 7) if name else np.full(8, NAN) for name in emotions]
    return np.array(rows, np.float32)


def faces(*chosen: int) -> tuple[Predictions, Labels]:
    age, gender, emotion, *predicted = zip(*(FACES[i] for i in chosen or range(len(FACES))), strict=True)
    labels = Labels(np.array(age, np.float32), np.array(gender, np.float32), confidences(list(emotion)))
    ages, genders, emotions = predicted
    return Predictions(np.array(ages, np.float32), np.array(genders, np.float32), confidences(list(emotions))), labels


def values(m: GroupMetrics) -> tuple[float, ...]:
    accuracies = (m.gender_accuracy.value, m.emotion_accuracy.value)
    return (m.samples, m.age_mae_years.value, m.age_error_std_years, *accuracies, m.macro_emotion_recall)


def test_each_age_group_has_its_hand_computed_values() -> None:
    groups = {m.group: values(m) for m in score(*faces()).groups}
    assert groups == {
        "0-9": pytest.approx((2, 1.0, 1.0, 1.0, 0.5, 0.5)),  # recall: happiness 1/1, neutral 0/1
        "10-19": pytest.approx((2, 4.0, 2.0, 0.5, 1.0, 1.0)),  # one of the two has no emotion
        "60-69": pytest.approx((1, 9.0, 0.0, 0.0, 1.0, 1.0)),
        "70+": pytest.approx((2, 3.0, 2.0, 1.0, 0.5, 0.5)),  # one of the two has no gender
    }


def test_overall_counts_each_metric_over_the_faces_that_have_its_label() -> None:
    report = score(*faces())
    std = np.std([2, 0, 6, 9, 1, 5, 2])
    assert values(report.overall) == pytest.approx((8, 25 / 7, std, 5 / 7, 5 / 7, (3 / 4 + 1 / 2 + 1) / 3))
    assert report.overall.group == "all"
    assert report.emotion_recall == pytest.approx({"happiness": 3 / 4, "neutral": 1 / 2, "sadness": 1.0})


def test_an_age_that_is_exactly_5_years_off_is_within_them() -> None:
    report = score(*faces())
    assert report.overall.age_within_5_years.value == pytest.approx(5 / 7)  # off by 2, 0, 6, 9, 1, 5, 2
    assert [m.age_within_5_years.value for m in report.groups] == [1.0, 0.5, 0.0, 1.0]


def test_baselines_are_the_best_constant_answers() -> None:
    baselines = score(*faces()).baselines
    assert (baselines.age_years, baselines.gender, baselines.emotion) == (12, "female", "happiness")
    deviations = np.abs(np.array([4, 9, 10, 69, 70, 75, 12]) - 12)
    assert baselines.age_mae_years == pytest.approx(deviations.mean())
    assert (baselines.gender_accuracy, baselines.emotion_accuracy) == pytest.approx((4 / 7, 4 / 7))


def test_no_constant_age_beats_the_baseline() -> None:
    ages = np.random.default_rng(0).integers(0, 75, 501).astype(np.float32)
    labels = Labels(ages, np.zeros(501, np.float32), np.tile(np.eye(8, dtype=np.float32)[0], (501, 1)))
    best = min(np.abs(ages - guess).mean() for guess in range(75))
    assert baselines_of(labels).age_mae_years == pytest.approx(best)


def test_mostly_male_faces_have_the_baseline_male() -> None:
    baselines = score(*faces(1, 2, 5, 0)).baselines
    assert (baselines.gender, baselines.gender_accuracy) == ("male", 0.75)


def test_a_label_that_no_face_has_is_nan_and_nothing_fails() -> None:
    predictions, _ = faces(0, 1, 2)
    nothing = np.full(3, NAN, np.float32)
    report = score(predictions, Labels(nothing, nothing, np.full((3, 8), NAN, np.float32)))
    assert report.groups == ()
    assert report.emotion_recall == {}
    assert report.overall.samples == 3
    assert np.isnan(values(report.overall)[1:]).all()
    for interval in map(report.overall.score, METRICS.values()):
        assert np.isnan([interval.value, interval.low, interval.high]).all()
    b = report.baselines
    assert np.isnan([b.age_years, b.age_mae_years, b.gender_accuracy, b.emotion_accuracy]).all()
    assert report.to_markdown().splitlines()[2:] == ["| **all** | **3** | **-** | **-** | **-** |", ""]


def test_groups_stand_in_the_order_of_age_and_empty_ones_are_left_out() -> None:
    assert [m.group for m in score(*faces()).groups] == ["0-9", "10-19", "60-69", "70+"]


@pytest.mark.parametrize(("age", "group"), [(9, 0), (10, 1), (19, 1), (20, 2), (69, 6), (70, 7), (99, 7)])
def test_a_face_is_counted_in_its_half_open_decade(age: int, group: int) -> None:
    predictions, labels = faces(0)
    [metrics] = score(predictions, Labels(np.array([age], np.float32), labels.gender, labels.emotion)).groups
    assert metrics.group == AGE_GROUPS[group]


# Intervals


def test_every_interval_contains_its_value() -> None:
    report = score(*random_faces(800))
    for metrics in (report.overall, *report.groups):
        for interval in map(metrics.score, METRICS.values()):
            assert interval.low <= interval.value <= interval.high
            assert interval.low < interval.high


def test_the_interval_is_that_of_the_normal_approximation_for_many_faces() -> None:
    predictions, labels = random_faces(2000)
    error = np.abs(predictions.age - labels.age)
    half = 1.96 * error.std() / np.sqrt(len(error))
    interval = score(predictions, labels).overall.age_mae_years
    assert interval.value - interval.low == pytest.approx(half, rel=0.15)
    assert interval.high - interval.value == pytest.approx(half, rel=0.15)


def test_a_value_without_spread_has_an_interval_without_width() -> None:
    interval = score(*faces(0, 0, 0)).overall.age_mae_years
    assert (interval.value, interval.low, interval.high) == (2, 2, 2)


def test_the_same_faces_give_the_same_report() -> None:
    predictions, labels = random_faces(50)
    assert score(predictions, labels) == score(predictions, labels)
    assert score(predictions, labels, seed=1) != score(predictions, labels)


# What is refused


@pytest.mark.parametrize("chosen", [(0,), (0, 1, 2)], ids=["fewer", "more"])
def test_not_one_prediction_a_face_is_refused(chosen: tuple[int, ...]) -> None:
    predictions, _ = faces(*chosen)
    with pytest.raises(ValueError, match=rf"got {len(chosen)} predictions for 2 labelled faces"):
        score(predictions, faces(0, 1)[1])


def test_no_faces_at_all_are_refused() -> None:
    nothing = np.empty(0, np.float32), np.empty(0, np.float32), np.empty((0, 8), np.float32)
    with pytest.raises(ValueError, match="got 0 predictions for 0 labelled faces"):
        score(Predictions(*nothing), Labels(*nothing))


@pytest.mark.parametrize("head", ["age", "gender", "emotion"])
@pytest.mark.parametrize("value", [NAN, np.inf])
def test_a_model_that_overflowed_is_refused_and_not_scored_on_the_rest(head: str, value: float) -> None:
    predictions, labels = faces(0, 1, 2)
    getattr(predictions, head)[1] = value
    with pytest.raises(ValueError, match="1 of 3 predictions are not finite"):
        score(predictions, labels)


# Printing


def test_the_table_is_printed_as_the_published_report_has_it() -> None:
    lines = score(*faces()).to_markdown().splitlines()
    assert lines[0] == "| age group | samples | age MAE ± std (years) | gender accuracy (%) | emotion accuracy (%) |"
    assert lines[2] == "| 0-9 | 2 | 1.00 ± 1.00 | 100.00 | 50.00 |"
    assert lines[6] == "| **all** | **8** | **3.57 ± 2.97** | **71.43** | **71.43** |"
    assert lines[8] == (
        "Macro emotion recall 75.00%. Ages within 5 years 71.43%. "
        "Always guessing: 12 years MAE 27.29, female 57.14%, happiness 57.14%."
    )


def test_a_label_that_no_face_has_is_a_dash_and_no_baseline() -> None:
    predictions, labels = faces(0, 1, 2)
    no_emotion = Labels(labels.age, labels.gender, np.full((3, 8), NAN, np.float32))
    lines = score(predictions, no_emotion).to_markdown().splitlines()
    assert lines[2] == "| 0-9 | 2 | 1.00 ± 1.00 | 100.00 | - |"
    assert lines[-1] == "Ages within 5 years 66.67%. Always guessing: 9 years MAE 2.00, male 66.67%."


def test_the_frame_has_a_row_a_group_and_intervals_as_columns() -> None:
    report = score(*faces())
    frame = report.to_frame()
    assert frame["group"].tolist() == ["0-9", "10-19", "60-69", "70+", "all"]
    assert {"samples", "age_mae_years", "age_mae_years_low", "age_mae_years_high", "gender_accuracy"} <= set(frame)
    assert frame["age_mae_years"].iloc[-1] == pytest.approx(25 / 7)
    assert frame["emotion_accuracy_high"].iloc[-1] == report.overall.emotion_accuracy.high


def test_the_csv_keeps_every_digit(tmp_path: Path) -> None:
    report: Report = score(*random_faces(60))
    report.write_csv(tmp_path / "report.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "report.csv"), report.to_frame(), check_exact=True)
