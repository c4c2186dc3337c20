"""The age-group table of one model file in one runtime: the same evaluation as of a checkpoint or a running server.

python -m convert.evaluate --model model_repository/agegendernet/1/model.onnx --manifest data/synthetic/manifest.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from contract.samples import ManifestError, Protocol, Role, Samples, load_samples
from contract.spec import MAX_BATCH_SIZE, Predictions
from convert.runtimes import ModelFileError, Runtime, RuntimeUnavailableError, load, runtime_for
from evaluation.metrics import Predict, Report, score


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a checkpoint, an ONNX model or an engine on a dataset's labelled faces."""

    model: Path  # .safetensors, .onnx or .plan
    manifest: Path
    runtime: Runtime | None = None  # by default what the suffix says; an ONNX model also runs in openvino
    role: Role = "test"
    protocol: Protocol = "holdout"
    batch_size: int = 32  # a result does not depend on it; it only has to fit into memory and the engine's profile
    out: Path | None = None  # the table as CSV, with intervals
    diagnosis: Path | None = None  # a folder for calibration, error by age, confusions, subgroups and worst faces


def evaluate_model(predict: Predict, samples: Samples, *, batch_size: int = 32, name: str = "model") -> Report:
    """`evaluation.metrics.evaluate` with a progress bar."""
    return score(predict_all(predict, samples, batch_size=batch_size, name=name), samples.labels)


def predict_all(predict: Predict, samples: Samples, *, batch_size: int = 32, name: str = "model") -> Predictions:
    """What the model says of every sample, in order, with a progress bar. Raises ModelFileError for NaN or infinity."""
    with tqdm(total=len(samples), desc=f"evaluating {name}", unit="face", leave=False) as bar:

        def predictions() -> Iterator[Predictions]:
            for images in samples.image_batches(batch_size):
                yield predict(images)
                bar.update(len(images))

        answers = Predictions.concatenate(predictions())
    if broken := answers.not_finite():
        raise ModelFileError(f"{broken} of {len(answers)} answers of {name} are not finite; is its precision too low?")
    return answers


def main(config: EvaluateConfig) -> None:
    if not 1 <= config.batch_size <= MAX_BATCH_SIZE:
        raise ModelFileError(f"--batch-size {config.batch_size} is not within 1 and {MAX_BATCH_SIZE}")
    runtime = config.runtime or runtime_for(config.model)
    samples = load_samples(config.manifest, config.role, config.protocol)
    predictions = predict_all(load(config.model, runtime), samples, batch_size=config.batch_size, name=runtime)
    report = score(predictions, samples.labels)
    title = f"{config.model}, {runtime}, {len(samples):,} faces ({config.role}, protocol {config.protocol})"
    print(f"{title}\n")
    print(report.to_markdown())
    if config.out is not None:
        report.write_csv(config.out)
    if config.diagnosis is not None:
        from evaluation.diagnosis.drawn import write_diagnosis  # matplotlib takes a second to import

        write_diagnosis({"": (predictions, samples)}, config.diagnosis, title=title)


if __name__ == "__main__":
    try:
        main(tyro.cli(EvaluateConfig))
    except (ManifestError, ModelFileError, RuntimeUnavailableError) as error:
        sys.exit(f"error: {error}")
