"""Evaluations side by side: they agree, or the program's exit status says that they do not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from evaluation.comparison import ComparisonConfig, differences, main, side_by_side
from evaluation.metrics import METRICS, score
from tests.datasets import random_faces


@pytest.fixture
def table() -> pd.DataFrame:
    return score(*random_faces(100)).to_frame()


def test_a_row_an_age_group_and_a_column_an_evaluation(table: pd.DataFrame) -> None:
    lines = side_by_side({"checkpoint": table, "gRPC": table}).splitlines()
    assert lines[0] == "| age group | faces | checkpoint | gRPC |"
    assert len(lines) == 2 + len(table)
    last = table.iloc[-1]
    cell = f"{last['age_mae_years']:.2f} / {100 * last['gender_accuracy']:.2f} / {100 * last['emotion_accuracy']:.2f}"
    assert lines[-1] == f"| all | 100 | {cell} | {cell} |"


def test_the_largest_difference_of_any_age_group_counts(table: pd.DataFrame) -> None:
    other = table.copy()
    other.loc[2, "age_mae_years"] += 0.25
    other.loc[0, "gender_accuracy"] -= 0.125
    found = differences({"checkpoint": table, "ONNX": other})
    assert (found.loc["checkpoint"] == 0).all()
    assert found.loc["ONNX"].drop(["age_mae_years", "gender_accuracy"]).tolist() == [0] * (len(METRICS) - 2)
    assert found.loc["ONNX", ["age_mae_years", "gender_accuracy"]].tolist() == pytest.approx([0.25, 0.125])


def test_what_no_face_is_labelled_with_agrees_and_what_only_one_evaluation_lacks_does_not(table: pd.DataFrame) -> None:
    lacking = table.assign(emotion_accuracy=float("nan"))
    assert (differences({"checkpoint": lacking, "ONNX": lacking}) == 0).all(axis=None)
    assert differences({"checkpoint": table, "ONNX": lacking}).loc["ONNX", "emotion_accuracy"] == float("inf")
    assert side_by_side({"checkpoint": lacking}).splitlines()[-1].endswith(" / - |")


def test_evaluations_of_other_faces_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="evaluation 'gRPC' is of other faces than the first"):
        differences({"checkpoint": table, "gRPC": score(*random_faces(90)).to_frame()})


@pytest.mark.parametrize(("years", "status"), [(0.0, 0), (0.005, 0), (0.02, 1)])
def test_the_exit_status_tells_whether_they_agree(
    tmp_path: Path, table: pd.DataFrame, years: float, status: int
) -> None:
    other = table.assign(age_mae_years=table["age_mae_years"] + years)
    paths = {"checkpoint": tmp_path / "a.csv", "gRPC": tmp_path / "b.csv"}
    for path, frame in zip(paths.values(), (table, other), strict=True):
        frame.to_csv(path, index=False)
    config = ComparisonConfig(evaluations=paths, out=tmp_path / "report.md")
    assert main(config) == status
    verdict = "They agree" if status == 0 else "THEY DISAGREE"
    assert verdict in (tmp_path / "report.md").read_text()
    assert main(dataclasses.replace(config, age_tolerance_years=1.0)) == 0
