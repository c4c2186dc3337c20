"""How far every runtime's answers are from PyTorch's, per head and age group; a failure where it is too far.

python -m convert.parity --manifest data/synthetic/manifest.csv --checkpoint runs/train/best.safetensors --onnx m.onnx
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from contract.files import replacing
from contract.repository import EngineManifestError, read_engine_manifest
from contract.samples import ManifestError, Protocol, Role, Samples, load_samples
from contract.spec import Predictions
from convert.evaluate import predict_all
from convert.runtimes import RUNTIMES, ModelFileError, Runtime, RuntimeUnavailableError, load
from evaluation.agreement import Tolerances, difference_table, excesses, to_markdown


def parse_runtimes(arguments: Sequence[str]) -> tuple[Runtime, ...]:
    """["torch,onnx"] as runtimes. Raises ValueError for an unknown one."""
    names = arguments[0].split(",")
    if unknown := set(names).difference(RUNTIMES):
        raise ValueError(f"unknown runtime {', '.join(sorted(unknown))}; known are {', '.join(RUNTIMES)}")
    return tuple(runtime for runtime in RUNTIMES if runtime in names)


_COMMA_SEPARATED = PrimitiveConstructorSpec(
    nargs=1,
    metavar=",".join(RUNTIMES),
    instance_from_str=parse_runtimes,
    is_instance=lambda value: isinstance(value, tuple),
    str_from_instance=lambda runtimes: [",".join(runtimes)],
)

# The same arithmetic summed in another order: fifty times what an untrained network, which amplifies it, showed.
EXACT = Tolerances(age_years=0.02, gender_probability=1e-3, emotion_probability=1e-3)
# Half precision: twenty times what a trained network showed on real faces. An untrained one can exceed it.
REDUCED = Tolerances(age_years=0.5, gender_probability=0.05, emotion_probability=0.05)


@dataclass(frozen=True)
class ParityConfig:
    """Compare runtimes on a dataset's faces; the first model of checkpoint, onnx, ... given is the reference."""

    manifest: Path
    checkpoint: Path | None = None  # runs in torch
    onnx: Path | None = None  # runs in onnx and openvino
    fp16_onnx: Path | None = None  # the same model with its trunk in half precision
    plan: Path | None = None  # runs in tensorrt
    runtimes: Annotated[tuple[Runtime, ...], _COMMA_SEPARATED] = ()  # by default those installed; any named must be
    role: Role = "test"
    protocol: Protocol = "holdout"
    batch_size: int = 32
    exact: Tolerances = EXACT  # of an FP32 model
    reduced: Tolerances = REDUCED  # of an FP16 or INT8 model
    out: Path | None = None  # the tables as one CSV


@dataclass(frozen=True)
class Contender:
    """One model file in one runtime."""

    runtime: Runtime
    model: Path
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


def contenders(config: ParityConfig) -> list[Contender]:
    """Every model in every runtime wanted, the reference first. Raises ModelFileError for a runtime without a model."""
    possible = [
        ("torch", config.checkpoint, "fp32"),
        ("onnx", config.onnx, "fp32"),
        ("onnx", config.fp16_onnx, "fp16"),
        ("openvino", config.onnx, "fp32"),
        ("openvino", config.fp16_onnx, "fp16"),
        ("tensorrt", config.plan, read_engine_manifest(config.plan).precision if config.plan else ""),
    ]
    wanted = config.runtimes or RUNTIMES
    chosen = [Contender(name, path, kind) for name, path, kind in possible if path is not None and name in wanted]
    if missing := set(config.runtimes).difference(contender.runtime for contender in chosen):
        raise ModelFileError(
            f"no model was given for {', '.join(sorted(missing))}: torch takes --checkpoint, onnx and openvino take "
            "--onnx or --fp16-onnx, tensorrt takes --plan"
        )
    return chosen


def predictions_of(config: ParityConfig, samples: Samples) -> Iterator[tuple[Contender, Predictions]]:
    """What each contender says of the samples. A runtime that was not asked for by name and is missing is skipped."""
    for contender in contenders(config):
        try:
            predict = load(contender.model, contender.runtime)
        except RuntimeUnavailableError as error:
            if config.runtimes:
                raise
            print(f"skipped {contender}: {error}\n")
            continue
        yield contender, predict_all(predict, samples, batch_size=config.batch_size, name=str(contender))


def compare(config: ParityConfig, samples: Samples) -> tuple[pd.DataFrame, list[str]]:
    """Print a table for each contender; return all of them and a line for each tolerance that is exceeded."""
    answers = predictions_of(config, samples)
    first, reference = next(answers, (None, None))
    if first is None or reference is None:
        raise ModelFileError("nothing to compare: give two of --checkpoint, --onnx, --fp16-onnx and --plan")
    tables, failures = [], []
    for contender, found in answers:
        table = difference_table(found, reference, samples.labels)
        tolerances = config.exact if contender.precision == "fp32" else config.reduced
        failures += [f"{contender}: {line}" for line in excesses(table, tolerances)]
        print(f"### {contender} against {first}, {len(samples):,} faces: largest / mean difference, change of scores\n")
        print(to_markdown(table), "\n")
        tables.append(table.assign(runtime=str(contender), reference=str(first)))
    if not tables:
        raise ModelFileError(f"nothing to compare {first} with: give another model or install another runtime")
    return pd.concat(tables), failures


def main(config: ParityConfig) -> None:
    table, failures = compare(config, load_samples(config.manifest, config.role, config.protocol))
    if config.out is not None:
        with replacing(config.out) as temporary:
            table.to_csv(temporary, index=False)
    if failures:
        sys.exit("past the tolerance:\n" + "\n".join(failures))
    print("every runtime is within its tolerances")


if __name__ == "__main__":
    try:
        main(tyro.cli(ParityConfig))
    except (ManifestError, ModelFileError, RuntimeUnavailableError, EngineManifestError) as error:
        sys.exit(f"error: {error}")
