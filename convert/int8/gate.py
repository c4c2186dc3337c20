"""May the INT8 model stand for the FP32 one? What it does to the scores on held-out faces, within stated limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from contract.samples import load_samples
from evaluation.agreement import agree, check_answers, excesses
from evaluation.limits import PARITY_FP32, Limits
from evaluation.run import Predict, batchwise, predict_all


def gate(
    reference: Predict,
    candidates: Mapping[str, Predict],
    manifests: Sequence[Path],
    limits: Limits,
    *,
    alike: tuple[str, str] | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Print the change of every score by age group, for each candidate on the test faces of each dataset.

    alike: two candidates that must also give the same answers as each other, since they are the same integers. Returns
    the tables as one, and a line for each limit that is exceeded over all faces of a dataset.
    """
    tables, failures = [], []
    for manifest in manifests:
        samples, dataset = load_samples(manifest), manifest.parent.name
        expected = predict_all(batchwise(reference), samples, name="fp32")
        answers = {name: predict_all(batchwise(predict), samples, name=name) for name, predict in candidates.items()}
        for name, found in answers.items():
            agreement = agree(found, expected, samples.labels)
            table = agreement.to_markdown()
            print(f"### {name} against fp32, {dataset}, {len(samples):,} test faces\n\n{table}\n")
            failures += [f"{name}, {dataset}: {line}" for line in excesses(agreement.check(limits))]
            tables.append(agreement.to_frame().assign(model=name, dataset=dataset))
        if alike is not None:
            first, second = alike
            differences = excesses(check_answers(answers[second], answers[first], PARITY_FP32))
            failures += [f"{second} against {first}, {dataset}: {line}" for line in differences]
    return pd.concat(tables), failures
