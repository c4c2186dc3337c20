"""May the INT8 model stand for the FP32 one? What it does to the scores on held-out faces, within stated limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from contract.samples import load_samples
from evaluation.agreement import agree, excesses
from evaluation.limits import Limits
from evaluation.run import Predict, batchwise, predict_all


def gate(
    reference: Predict, candidates: Mapping[str, Predict], manifests: Sequence[Path], limits: Limits
) -> tuple[pd.DataFrame, list[str]]:
    """Print the change of every score by age group, for each candidate on the test faces of each dataset.

    Returns the tables as one, and a line for each limit that is exceeded over all faces of a dataset.
    """
    tables, failures = [], []
    for manifest in manifests:
        samples, dataset = load_samples(manifest), manifest.parent.name
        expected = predict_all(batchwise(reference), samples, name="fp32")
        for name, predict in candidates.items():
            agreement = agree(predict_all(batchwise(predict), samples, name=name), expected, samples.labels)
            table = agreement.to_markdown()
            print(f"### {name} against fp32, {dataset}, {len(samples):,} test faces\n\n{table}\n")
            failures += [f"{name}, {dataset}: {line}" for line in excesses(agreement.check(limits))]
            tables.append(agreement.to_frame().assign(model=name, dataset=dataset))
    return pd.concat(tables), failures
