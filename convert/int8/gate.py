"""May the INT8 model stand for the FP32 one? What it does to the scores on held-out faces, within stated limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from contract.samples import Labels, Samples, load_samples
from convert.evaluate import predict_all
from evaluation.agreement import difference_table, to_markdown
from evaluation.metrics import Predict


@dataclass(frozen=True)
class Limits:
    """How much worse than FP32 the scores over all test faces of a dataset may be."""

    age_mae_years: float = 0.05
    gender_accuracy: float = 0.002  # a fraction; one face is always allowed, which is more on fewer than 500
    emotion_accuracy: float = 0.003


def gate(
    reference: Predict, candidates: Mapping[str, Predict], manifests: Sequence[Path], limits: Limits
) -> tuple[pd.DataFrame, list[str]]:
    """Print the change of every score by age group, for each candidate on the test faces of each dataset.

    Returns the tables as one, and a line for each limit that is passed.
    """
    tables, failures = [], []
    for manifest in manifests:
        samples = load_samples(manifest)
        dataset = manifest.parent.name
        for name, table in _tables(reference, candidates, samples):
            print(f"### {name} against fp32, {dataset}, {len(samples):,} test faces\n\n{to_markdown(table)}\n")
            failures += [f"{name}, {dataset}: {line}" for line in excesses(table, samples.labels, limits)]
            tables.append(table.assign(model=name, dataset=dataset))
    return pd.concat(tables), failures


def excesses(table: pd.DataFrame, labels: Labels, limits: Limits) -> list[str]:
    """A line for each score over all faces that got worse by more than its limit; one without labels has none."""
    change = table[table["group"] == "all"].iloc[0]
    years = change["age_mae_years_change"]
    lines = [f"age MAE {years:+.4f} years, limit {limits.age_mae_years:g}"] if years > limits.age_mae_years else []
    for head, known in (("gender", ~np.isnan(labels.gender)), ("emotion", ~np.isnan(labels.emotion).any(1))):
        if not known.any():
            continue
        gain = change[f"{head}_accuracy_change"]
        limit = max(getattr(limits, f"{head}_accuracy"), 1 / known.sum()) + 1e-9  # one face of N is no binary fraction
        if -gain > limit:
            lines.append(f"{head} accuracy {100 * gain:+.2f} points, limit {-100 * limit:.2f}")
    return lines


def _tables(
    reference: Predict, candidates: Mapping[str, Predict], samples: Samples
) -> Iterator[tuple[str, pd.DataFrame]]:
    expected = predict_all(reference, samples, name="fp32")
    for name, predict in candidates.items():
        yield name, difference_table(predict_all(predict, samples, name=name), expected, samples.labels)
