"""Checkpoint -> the age-group evaluation, in PyTorch.

    python -m training.evaluate --checkpoint runs/train/best.safetensors --manifest data/synthetic/manifest.csv

With several manifests every dataset is evaluated by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from contract import program
from contract.spec import Images, Predictions
from evaluation.run import EvaluationOptions, Predict, batchwise, run
from training.network.checkpoint import Checkpoint, load_checkpoint
from training.network.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(EvaluationOptions):
    """Evaluate a checkpoint, float32, and print the table by age group of each dataset."""

    checkpoint: Path
    batch_size: int = 64  # a result does not depend on it


def predictor(checkpoint: Checkpoint, device: torch.device) -> Predict:
    """Return a function from uint8 [N, 128, 128, 3] to Predictions that runs the checkpoint on `device`."""
    network = checkpoint.network.to(device).to(memory_format=torch.channels_last)
    preprocess = Preprocess(checkpoint.resolution).to(device)

    @torch.inference_mode()
    def predict(images: Images) -> Predictions:
        answers = network(preprocess(torch.from_numpy(images).to(device))).answers()
        return Predictions(*(tensor.cpu().numpy() for tensor in answers))

    return predict


def best_device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main(config: EvaluateConfig) -> None:
    predict = predictor(load_checkpoint(config.checkpoint), best_device())
    run(batchwise(predict), config, title=str(config.checkpoint))


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(EvaluateConfig)))
