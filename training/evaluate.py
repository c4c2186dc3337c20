"""Checkpoint -> the age-group evaluation, in PyTorch.

python -m training.evaluate --checkpoint runs/train/best.safetensors --manifest data/synthetic/manifest.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from contract.metrics import Predict, Report, evaluate_stream
from contract.samples import ManifestError, Protocol, Role, Samples, load_samples
from contract.spec import Images, Predictions
from training.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from training.preprocess import Preprocess


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a checkpoint, float32, and print the table by age group."""

    checkpoint: Path
    manifest: Path
    role: Role = "test"
    protocol: Protocol = "holdout"  # published: all labelled faces, training images included
    batch_size: int = 64
    out: Path | None = None  # also write the table as CSV


def predictor(checkpoint: Checkpoint, device: torch.device) -> Predict:
    """A function from uint8 [N, 128, 128, 3] to Predictions that runs the checkpoint on `device`."""
    network = checkpoint.network.to(device).to(memory_format=torch.channels_last)
    preprocess = Preprocess(checkpoint.resolution).to(device)

    @torch.inference_mode()
    def predict(images: Images) -> Predictions:
        answers = network(preprocess(torch.from_numpy(images).to(device))).answers()
        return Predictions(*(tensor.cpu().numpy() for tensor in answers))

    return predict


def evaluate_checkpoint(checkpoint: Checkpoint, samples: Samples, device: torch.device, batch_size: int = 64) -> Report:
    """Score the checkpoint on the samples, with a progress bar."""
    predict = predictor(checkpoint, device)

    def predict_stream(batches: Iterable[Images]) -> Iterator[Predictions]:
        with tqdm(total=len(samples), desc="evaluating the checkpoint", unit="face", leave=False) as bar:
            for images in batches:
                yield predict(images)
                bar.update(len(images))

    return evaluate_stream(predict_stream, samples, batch_size=batch_size)


def main(config: EvaluateConfig) -> None:
    samples = load_samples(config.manifest, config.role, config.protocol)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report = evaluate_checkpoint(load_checkpoint(config.checkpoint), samples, device, config.batch_size)
    print(report.to_markdown())
    if config.out:
        report.write_csv(config.out)


if __name__ == "__main__":
    try:
        main(tyro.cli(EvaluateConfig))
    except (ManifestError, CheckpointError) as error:
        sys.exit(f"error: {error}")
