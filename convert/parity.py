"""How far every runtime's answers are from PyTorch's, per head and age group; a failure where it is too far.

python -m convert.parity --manifest data/synthetic/manifest.csv --checkpoint runs/train/best.safetensors --onnx m.onnx
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from contract import program
from contract.files import replacing
from contract.repository import read_engine_manifest
from contract.samples import Protocol, Role, Samples, load_samples
from contract.spec import Predictions
from convert.errors import ModelFileError, RuntimeUnavailableError
from convert.runtimes import RUNTIMES, Runtime, load, runs
from evaluation.agreement import agree, excesses
from evaluation.limits import INT8, PARITY_FP16, PARITY_FP32, Limits
from evaluation.run import batchwise, predict_all


@dataclass(frozen=True)
class ParityConfig:
    """Compare runtimes on a dataset's faces; the first model of checkpoint, onnx, ... given is the reference."""

    manifest: Path
    checkpoint: Path | None = None  # runs in torch
    onnx: Path | None = None  # runs in onnx and openvino
    fp16_onnx: Path | None = None  # the same model with its trunk in half precision
    int8_onnx: Path | None = None  # the same model quantized, the file that serves fastest on CPUs
    plan: Path | None = None  # runs in tensorrt
    runtimes: tuple[Runtime, ...] = ()  # by default those installed; any named must be
    role: Role = "test"
    protocol: Protocol = "holdout"
    batch_size: int = 32  # a result does not depend on it
    fp32: Limits = PARITY_FP32  # what an FP32 model is held to, ...
    fp16: Limits = PARITY_FP16
    int8: Limits = INT8
    out: Path | None = None  # the tables as one CSV


@dataclass(frozen=True)
class Contender:
    """One model file in one runtime."""

    runtime: Runtime
    model: Path
    precision: str  # fp32, fp16 or int8

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


def contenders(config: ParityConfig) -> list[Contender]:
    """Return every model in every runtime wanted, the reference first.

    Raises ModelFileError for a runtime that no model was given for.
    """
    models: list[tuple[Path | None, str]] = [
        (config.checkpoint, "fp32"),
        (config.onnx, "fp32"),
        (config.fp16_onnx, "fp16"),
        (config.int8_onnx, "int8"),
        (config.plan, read_engine_manifest(config.plan).precision if config.plan else ""),
    ]
    chosen = [
        Contender(runtime, model, precision)
        for runtime in RUNTIMES
        for model, precision in models
        if model is not None and runs(runtime, model) and runtime in (config.runtimes or RUNTIMES)
    ]
    if missing := set(config.runtimes).difference(contender.runtime for contender in chosen):
        raise ModelFileError(
            f"no model was given for {', '.join(sorted(missing))}: torch takes --checkpoint, onnx and openvino take "
            "--onnx, --fp16-onnx or --int8-onnx, tensorrt takes --plan"
        )
    return chosen


def predictions_of(config: ParityConfig, samples: Samples) -> Iterator[tuple[Contender, Predictions]]:
    """Yield what each contender says of the samples; a runtime that is missing is skipped unless asked for by name."""
    for contender in contenders(config):
        try:
            predict = load(contender.model, contender.runtime)
        except RuntimeUnavailableError as error:
            if config.runtimes:
                raise
            print(f"skipped {contender}: {error}\n")
            continue
        yield contender, predict_all(batchwise(predict), samples, batch_size=config.batch_size, name=str(contender))


def compare(config: ParityConfig, samples: Samples) -> tuple[pd.DataFrame, list[str]]:
    """Print a table for each contender; return all of them and a line for each limit that is exceeded."""
    answers = predictions_of(config, samples)
    first, reference = next(answers, (None, None))
    if first is None or reference is None:
        raise ModelFileError("nothing to compare: give two of --checkpoint, --onnx, --fp16-onnx, --int8-onnx, --plan")
    tables, failures = [], []
    for contender, found in answers:
        agreement = agree(found, reference, samples.labels)
        limits: Limits = getattr(config, contender.precision)
        failures += [f"{contender}: {line}" for line in excesses(agreement.check(limits))]
        print(f"### {contender} against {first}, {len(samples):,} faces: largest / mean difference, change of scores\n")
        print(agreement.to_markdown(), "\n")
        tables.append(agreement.to_frame().assign(runtime=str(contender), reference=str(first)))
    if not tables:
        raise ModelFileError(f"nothing to compare {first} with: give another model or install another runtime")
    return pd.concat(tables), failures


def main(config: ParityConfig) -> None:
    table, failures = compare(config, load_samples(config.manifest, config.role, config.protocol))
    if config.out is not None:
        with replacing(config.out) as temporary:
            table.to_csv(temporary, index=False)
    if failures:
        sys.exit("past the limits:\n" + "\n".join(failures))
    print("every runtime is within its limits")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ParityConfig)))
