"""A run's best checkpoint -> weights to hand out: half precision, half the size, checked to answer the same.

python -m training.release --checkpoint runs/train/best.safetensors --manifest data/ffhq/manifest.csv \\
    --out weights/agegendernet-224.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from contract import program
from contract.program import UserError
from contract.samples import load_samples
from contract.spec import Predictions
from evaluation.agreement import check_answers, describe, excesses
from evaluation.limits import RELEASE
from training.evaluate import predictor
from training.network.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


class ReleaseError(UserError, RuntimeError):
    """The rounded weights do not answer as the trained ones; the file is removed."""


@dataclass(frozen=True)
class ReleaseConfig:
    """Write a checkpoint's weights in half precision."""

    checkpoint: Path
    out: Path
    manifest: tuple[Path, ...]  # their held-out faces check the rounding
    check_images: int = 256  # of each manifest


def release(checkpoint: Checkpoint, config: ReleaseConfig) -> str:
    """Write `config.out` and return what was compared. Raises ReleaseError, ManifestError."""
    save_checkpoint(config.out, checkpoint, torch.float16)
    rounded = load_checkpoint(config.out)
    images = [next(load_samples(manifest).image_batches(config.check_images)) for manifest in config.manifest]
    predict_trained, predict_rounded = (predictor(c, torch.device("cpu")) for c in (checkpoint, rounded))
    expected = Predictions.concatenate(map(predict_trained, images))
    found = Predictions.concatenate(map(predict_rounded, images))
    checks = check_answers(found, expected, RELEASE)
    summary = f"{len(expected)} faces, rounded weights against trained ones, at most: {describe(checks)}"
    if excesses(checks):
        config.out.unlink()
        raise ReleaseError(f"{summary}. Keep the checkpoint in float32")
    return summary


def main(config: ReleaseConfig) -> None:
    print(release(load_checkpoint(config.checkpoint), config))
    print(f"wrote {config.out} ({config.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ReleaseConfig)))
