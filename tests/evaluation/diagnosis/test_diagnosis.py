"""Error by age, confusions, subgroups and worst faces against values worked out by hand, and the text of them all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from contract.samples import Labels, Samples, load_samples
from contract.spec import EMOTIONS, Predictions
from evaluation.diagnosis.age_error import age_error
from evaluation.diagnosis.confusion import confuse
from evaluation.diagnosis.diagnose import diagnose
from evaluation.diagnosis.subgroups import MIN_FACES, attributes_of, compare_subgroups
from evaluation.diagnosis.text import to_markdown
from evaluation.diagnosis.worst import worst_faces
from evaluation.metrics import METRICS, score
from tests.datasets import WriteDataset, random_faces

NAN = float("nan")
RNG = np.random.default_rng


def table_of(labels: Labels, **others: list[str]) -> pd.DataFrame:
    columns = {"age": labels.age, "gender": labels.gender}
    return pd.DataFrame(columns | dict(zip(EMOTIONS, labels.emotion.T, strict=True)) | others)


def labels_without(labels: Labels, *missing: str) -> Labels:
    arrays = {name: getattr(labels, name) for name in ("age", "gender", "emotion")}
    return Labels(**{name: np.full_like(a, NAN) if name in missing else a for name, a in arrays.items()})


def some_faces(ages: list[float], answers: list[float]) -> tuple[Predictions, Labels]:
    predictions, labels = random_faces(len(ages))
    return (
        Predictions(np.array(answers, np.float32), predictions.gender, predictions.emotion),
        Labels(np.array(ages, np.float32), labels.gender, labels.emotion),
    )


# Error by age


def test_errors_are_by_bins_of_five_years_with_their_direction() -> None:
    found = age_error(*some_faces([0, 4, 5, 62, NAN], [2, 3, 9, 50, 1]))
    assert found is not None
    assert [(b.low, b.high, b.faces, b.mae_years.value, b.bias_years.value) for b in found.bins] == [
        (0, 5, 2, 1.5, 0.5),
        (5, 10, 1, 4, 4),
        (60, 65, 1, 12, -12),
    ]
    assert (found.faces, found.mae_years.value, found.bias_years.value) == (4, 4.75, -1.75)
    assert (found.median_years, found.p90_years) == pytest.approx((3, np.percentile([1, 2, 4, 12], 90)))


def test_faces_without_ages_have_no_error_by_age() -> None:
    assert age_error(*some_faces([NAN, NAN], [1, 2])) is None


# Confusions


def emotions(*names: str) -> np.ndarray:
    return np.array([np.eye(8, dtype=np.float32)[EMOTIONS.index(name)] for name in names])


def test_confusions_count_answers_by_label() -> None:
    predictions, labels = random_faces(5)
    answered = emotions("fear", "fear", "happiness", "happiness", "contempt")
    labelled = emotions("fear", "happiness", "happiness", "happiness", "happiness")
    found = confuse(
        Predictions(predictions.age, predictions.gender, answered),
        Labels(labels.age, labels.gender, labelled),
        "emotion",
        RNG(0),
    )
    assert found is not None
    table = found.to_frame().set_index("labelled")
    assert table.index.tolist() == ["fear", "happiness"]  # what occurs among the labels
    assert table.columns.tolist() == list(EMOTIONS)  # all that may be answered
    assert table.loc["happiness", ["fear", "happiness", "contempt"]].tolist() == [1, 2, 1]
    assert {name: recall.value for name, recall in found.recall.items()} == {"fear": 1.0, "happiness": 0.5}
    assert {name: precision.value for name, precision in found.precision.items()} == {"fear": 0.5, "happiness": 1.0}
    assert found.balanced_accuracy.value == 0.75
    assert found.balanced_accuracy.low < 0.75 < found.balanced_accuracy.high


def test_a_label_that_is_absent_has_no_confusions() -> None:
    predictions, labels = random_faces(5)
    assert confuse(predictions, labels_without(labels, "gender"), "gender", RNG(0)) is None


# Subgroups


def test_the_gap_is_between_the_largest_and_the_smallest_value_of_large_enough_subgroups() -> None:
    few, many = MIN_FACES - 1, MIN_FACES
    ages = np.array([5] * many + [15] * many + [25] * few, np.float32)
    predictions, labels = some_faces(ages.tolist(), (ages + np.repeat([1, 3, 50], [many, many, few])).tolist())
    found = compare_subgroups(predictions, table_of(labels), RNG(0))
    gaps = {(g.attribute, g.metric.name): g for g in found.gaps}
    gap = gaps["age group", "age_mae_years"]
    assert (gap.best, gap.worst) == ("0-9", "10-19")
    assert (gap.value.value, gap.value.low, gap.value.high) == pytest.approx((2, 2, 2))
    rows = {(row.attribute, row.name): row for row in found.rows}
    assert rows["age group", "20-29"].scores[METRICS["age_mae_years"]].value == 50  # in the table all the same
    assert rows["all", "all"].faces == len(ages)


def test_the_better_gender_is_the_one_with_the_higher_accuracy() -> None:
    predictions, labels = random_faces(200)
    always_male = Predictions(predictions.age, np.ones(200, np.float32), predictions.emotion)
    gaps = compare_subgroups(always_male, table_of(labels), RNG(0)).gaps
    [gap] = [g for g in gaps if (g.attribute, g.metric.name) == ("gender", "gender_accuracy")]
    assert (gap.best, gap.worst, gap.value.value) == ("male", "female", 1.0)


def test_race_counts_where_the_manifest_has_it_alone_and_with_gender() -> None:
    labels = random_faces(4)[1]
    genders = Labels(labels.age, np.array([0, 1, 1, NAN], np.float32), labels.emotion)
    found = attributes_of(table_of(genders, race=["asian", "asian", "white", "white"]))
    assert found["race"].tolist() == ["asian", "asian", "white", "white"]
    assert found["race and gender"].tolist()[:3] == ["asian, female", "asian, male", "white, male"]
    assert found["race and gender"].isna().tolist() == [False, False, False, True]
    assert set(attributes_of(table_of(genders))) == {"gender", "age group"}


def test_the_format_of_pictures_counts_where_there_are_several() -> None:
    labels = random_faces(4)[1]
    mixed = attributes_of(table_of(labels, format=["png", "jpeg", "png", "jpeg"], agreement=["majority"] * 4))
    assert mixed["format"].tolist() == ["png", "jpeg", "png", "jpeg"]
    assert set(mixed) == {"gender", "age group", "format"}


def test_faces_that_nothing_tells_apart_have_no_subgroups() -> None:
    predictions, labels = random_faces(50)
    found = compare_subgroups(predictions, table_of(labels_without(labels, "age", "gender")), RNG(0))
    assert (found.rows, found.gaps) == ((), ())


# Worst faces


def test_the_worst_faces_are_the_furthest_off_and_the_most_confidently_wrong() -> None:
    predictions, labels = some_faces([20, NAN, 40, 60], [21, 90, 70, 50])
    predictions = Predictions(predictions.age, np.array([0.9, 0.6, 0.99, 0.3], np.float32), predictions.emotion)
    labels = Labels(labels.age, np.array([0, 0, 1, NAN], np.float32), emotions(*["anger"] * 4))
    found = worst_faces(predictions, labels, count=2)
    assert [(w.position, w.labelled, w.answered) for w in found["age"]] == [
        (2, "40 years", "70 years"),
        (3, "60 years", "50 years"),
    ]
    assert [(w.position, w.labelled, w.answered) for w in found["gender"]] == [
        (0, "female", "male 90%"),
        (1, "female", "male 60%"),
    ]


def test_a_head_without_labels_or_without_errors_has_no_worst_faces() -> None:
    predictions, labels = random_faces(10)
    right = Predictions(predictions.age, labels.gender, predictions.emotion)
    assert set(worst_faces(right, labels_without(labels, "age"))) == {"emotion"}


# All together


@pytest.fixture
def samples(write_dataset: WriteDataset) -> Samples:
    return load_samples(write_dataset(*["holdout"] * 70))


def answers_for(samples: Samples) -> Predictions:
    return random_faces(len(samples), seed=3)[0]


def test_a_number_has_the_same_interval_in_the_diagnosis_as_in_the_report(samples: Samples) -> None:
    answers = answers_for(samples)
    found, overall = diagnose(answers, samples), score(answers, samples.labels).overall
    assert found.age_error is not None
    assert found.age_error.mae_years == overall.age_mae_years
    assert found.calibration["gender"].accuracy == overall.gender_accuracy
    assert found.calibration["emotion"].accuracy == overall.emotion_accuracy


def test_the_text_has_a_section_for_everything_with_intervals(samples: Samples) -> None:
    text = to_markdown(diagnose(answers_for(samples), samples), {"calibration": "c.png", "worst_age": "w.png"})
    for section in ("Calibration", "Error by age", "Confusions", "Subgroups", "Worst faces"):
        assert f"## {section}" in text
    assert "![Calibration](c.png)" in text
    assert "[age](w.png)" in text
    assert "nan" not in text


def test_a_model_that_overflowed_or_lost_faces_is_refused(samples: Samples) -> None:
    answers = answers_for(samples)
    with pytest.raises(ValueError, match="got 70 predictions for 69 labelled faces"):
        diagnose(answers, samples.take(slice(1, None)))
    answers.age[0] = NAN
    with pytest.raises(ValueError, match="1 of 70 predictions are not finite"):
        diagnose(answers, samples)
