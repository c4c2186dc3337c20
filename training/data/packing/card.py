"""The dataset card: what a manifest holds, counted, and what constant answers would score on its holdout."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from contract.samples import COLUMNS, PARTS, ROLES, Protocol, labels_of
from contract.spec import AGE_GROUPS, EMOTIONS, GENDERS, age_group_index
from evaluation.metrics import baselines_of
from evaluation.text import markdown_table
from training.data.faces import LabelledFaces, Rejection

_UNLABELLED = "not labelled"


def dataset_card(source: LabelledFaces, table: pd.DataFrame, rejections: Sequence[Rejection]) -> str:
    """Markdown about the faces in `table`, the manifest that was made of `source`, and about those left out."""
    sections = [
        f"# Dataset card: {source.title}",
        f"{len(table):,} faces, {len(rejections):,} left out.",
        "\n".join(f"* {note}" for note in [*source.notes, *_warnings(table)]),
        "## Faces by protocol and role",
        _role_table(table, source.protocols),
        "## Faces by split",
        _split_table(table),
        "## Baselines on the holdout",
        _baselines(table[table["split"] == "holdout"]),
        "## Left out",
        _rejection_table(rejections),
    ]
    return "\n\n".join(sections) + "\n"


def _warnings(table: pd.DataFrame) -> Iterator[str]:
    for role, parts in ROLES["holdout"].items():
        if not table["split"].isin(parts).any():
            yield f"**No face for {role}** (split {' or '.join(parts)}): add faces or split by a hash of the id."


def _role_table(table: pd.DataFrame, protocols: Sequence[Protocol]) -> str:
    rows = [
        [protocol, role, ", ".join(parts), f"{int(table['split'].isin(parts).sum()):,}"]
        for protocol in protocols
        for role, parts in ROLES[protocol].items()
    ]
    return markdown_table(["protocol", "role", "splits", "faces"], rows, text_columns=3)


def _split_table(table: pd.DataFrame) -> str:
    """One row a label value, one column a split; emotions count by their largest confidence."""
    parts = [part for part in PARTS if (table["split"] == part).any()]
    rows = [["**all**", *_counts(table, parts, pd.Series(True, table.index))]]
    for title, values, order in _label_columns(table):
        present = [value for value in (*order, _UNLABELLED) if (values == value).any()]
        if present != [_UNLABELLED]:
            rows += [[f"{title} {value}", *_counts(table, parts, values == value)] for value in present]
    return markdown_table(["", *parts, "all"], rows)


def _counts(table: pd.DataFrame, parts: Sequence[str], chosen: Any) -> list[str]:
    of_part = table.loc[chosen, "split"].value_counts()
    return [f"{int(of_part.get(part, 0)):,}" for part in parts] + [f"{int(of_part.sum()):,}"]


def _label_columns(table: pd.DataFrame) -> Iterator[tuple[str, pd.Series[Any], Sequence[str]]]:
    labels = labels_of(table)
    columns = (
        ("age", age_group_index(np.nan_to_num(labels.age)), np.isnan(labels.age), AGE_GROUPS),
        ("gender", np.nan_to_num(labels.gender).round().astype(int), np.isnan(labels.gender), GENDERS),
        ("emotion", np.nan_to_num(labels.emotion).argmax(1), np.isnan(labels.emotion.sum(1)), EMOTIONS),
    )
    for title, index, missing, names in columns:
        values = np.where(missing, _UNLABELLED, np.array(names)[index])
        yield title, pd.Series(values, table.index), names
    for name in [name for name in table.columns if name not in COLUMNS]:
        yield name, table[name], sorted(table[name].unique())


def _baselines(holdout: pd.DataFrame) -> str:
    if not len(holdout):
        return "There is no holdout."
    found = baselines_of(labels_of(holdout))
    answers = [
        (f"always {found.age_years:.0f} years old", found.age_mae_years, f"MAE {found.age_mae_years:.2f} years"),
        (f"always {found.gender}", found.gender_accuracy, f"{found.gender_accuracy:.2%}"),
        (f"always {found.emotion}", found.emotion_accuracy, f"{found.emotion_accuracy:.2%}"),
    ]
    rows = [[answer, text] for answer, value, text in answers if not math.isnan(value)]
    return markdown_table(["answer", "score"], rows)


def _rejection_table(rejections: Sequence[Rejection]) -> str:
    if not rejections:
        return "Nothing."
    counts = Counter(rejection.reason for rejection in rejections)
    rows = [[reason, f"{count:,}"] for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return "Listed in `rejected.csv`.\n\n" + markdown_table(["reason", "count"], rows)
