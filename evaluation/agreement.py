"""Two runtimes' answers to the same faces: differences in years and probability, and what they do to the scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from contract.samples import Labels
from contract.spec import AGE_GROUPS, Predictions, age_group_index
from evaluation.metrics import score

SCORES = ("age_mae_years", "gender_accuracy", "emotion_accuracy")


@dataclass(frozen=True)
class Tolerances:
    """The largest difference allowed on any face, per head."""

    age_years: float
    gender_probability: float
    emotion_probability: float


def difference_table(found: Predictions, reference: Predictions, labels: Labels) -> pd.DataFrame:
    """A row per age group and one for all: largest and mean absolute difference per head, and change of each score.

    Columns: group, samples, {age_years,gender_probability,emotion_probability}_{max,mean}, {each of SCORES}_change.
    """
    differences = {
        "age_years": np.abs(found.age - reference.age),
        "gender_probability": np.abs(found.gender - reference.gender),
        "emotion_probability": np.abs(found.emotion - reference.emotion).max(1),
    }
    group_of = np.where(np.isnan(labels.age), -1, age_group_index(np.nan_to_num(labels.age)))
    chosen = {AGE_GROUPS[index]: group_of == index for index in np.unique(group_of) if index >= 0}
    chosen["all"] = np.ones(len(labels), bool)
    rows = [
        {"group": group, "samples": int(mask.sum())}
        | {f"{head}_max": float(values[mask].max()) for head, values in differences.items()}
        | {f"{head}_mean": float(values[mask].mean()) for head, values in differences.items()}
        for group, mask in chosen.items()
    ]
    return pd.DataFrame(rows).merge(_score_changes(found, reference, labels), on="group")


def excesses(table: pd.DataFrame, tolerances: Tolerances) -> list[str]:
    """A line for each head whose largest difference is past its tolerance."""
    largest = table.set_index("group").loc["all"]
    return [
        f"{head} differs by up to {largest[f'{head}_max']:.2g}, tolerance {tolerance:g}"
        for head, tolerance in vars(tolerances).items()
        if largest[f"{head}_max"] > tolerance
    ]


def to_markdown(table: pd.DataFrame) -> str:
    lines = [
        "| age group | samples | age (years) | gender (probability) | emotion (probability) "
        "| MAE (years) | gender (points) | emotion (points) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table.to_dict("records"):
        heads = [
            f"{row[f'{head}_max']:.1e} / {row[f'{head}_mean']:.1e}"
            for head in ("age_years", "gender_probability", "emotion_probability")
        ]
        changes = [
            f"{row['age_mae_years_change']:+.4f}",
            f"{100 * row['gender_accuracy_change']:+.2f}",
            f"{100 * row['emotion_accuracy_change']:+.2f}",
        ]
        lines.append("| " + " | ".join([row["group"], f"{row['samples']:,}", *heads, *changes]) + " |")
    return "\n".join(lines)


def _score_changes(found: Predictions, reference: Predictions, labels: Labels) -> pd.DataFrame:
    now, before = (score(predictions, labels).to_frame().set_index("group") for predictions in (found, reference))
    return (now - before)[list(SCORES)].add_suffix("_change").reset_index()
