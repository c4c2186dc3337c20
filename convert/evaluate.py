"""The age-group table of one model file in one runtime: the same evaluation as of a checkpoint or a running server.

python -m convert.evaluate --model model_repository/agegendernet/1/model.onnx --manifest data/synthetic/manifest.csv
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from contract import program
from contract.spec import MAX_BATCH_SIZE
from convert.errors import ModelFileError
from convert.runtimes import Runtime, load, runtime_for
from evaluation.run import EvaluationOptions, batchwise, run


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluationOptions):
    """Score a checkpoint, an ONNX model or an engine on a dataset's labelled faces."""

    model: Path  # .safetensors, .onnx or .plan
    runtime: Runtime | None = None  # by default what the suffix says; an ONNX model also runs in openvino


def main(config: EvaluateConfig) -> None:
    if config.batch_size > MAX_BATCH_SIZE:
        raise ModelFileError(f"--batch-size {config.batch_size} is above {MAX_BATCH_SIZE}, which no engine takes")
    runtime = config.runtime or runtime_for(config.model)
    run(batchwise(load(config.model, runtime)), config, title=f"{config.model} in {runtime}")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(EvaluateConfig)))
