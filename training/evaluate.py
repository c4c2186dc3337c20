"""Checkpoint -> the age-group evaluation, in PyTorch.

    python -m training.evaluate --checkpoint runs/train/best.safetensors --manifest data/synthetic/manifest.csv

With several manifests every dataset is evaluated by itself. --diagnosis DIR also writes, in pictures and numbers, where
the model goes wrong; the contact sheets there show the faces themselves, so keep DIR out of what is published.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from contract.samples import ManifestError, Protocol, Role, Samples, load_samples
from contract.spec import Images, Predictions
from evaluation.diagnosis.drawn import write_diagnosis
from evaluation.diagnosis.numbers import DIAGNOSIS_NAME
from evaluation.metrics import Predict, score
from training.network.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from training.network.preprocess import Preprocess


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a checkpoint, float32, and print the table by age group of each dataset."""

    checkpoint: Path
    manifest: tuple[Path, ...]  # one or several, each evaluated by itself: their labels differ
    role: Role = "test"
    protocol: Protocol = "holdout"  # published: all labelled faces, training images included
    batch_size: int = 64
    out: Path | None = None  # also write the table as CSV; of several datasets with each one's name in the file name
    diagnosis: Path | None = None  # a folder for calibration, error by age, confusions, subgroups and worst faces


def predictor(checkpoint: Checkpoint, device: torch.device) -> Predict:
    """A function from uint8 [N, 128, 128, 3] to Predictions that runs the checkpoint on `device`."""
    network = checkpoint.network.to(device).to(memory_format=torch.channels_last)
    preprocess = Preprocess(checkpoint.resolution).to(device)

    @torch.inference_mode()
    def predict(images: Images) -> Predictions:
        answers = network(preprocess(torch.from_numpy(images).to(device))).answers()
        return Predictions(*(tensor.cpu().numpy() for tensor in answers))

    return predict


def predict_all(checkpoint: Checkpoint, samples: Samples, device: torch.device, batch_size: int = 64) -> Predictions:
    """What the checkpoint says of every sample, in order, with a progress bar."""
    predict = predictor(checkpoint, device)
    with tqdm(total=len(samples), desc="evaluating the checkpoint", unit="face", leave=False) as bar:

        def predictions() -> Iterator[Predictions]:
            for images in samples.image_batches(batch_size):
                yield predict(images)
                bar.update(len(images))

        return Predictions.concatenate(predictions())


def names_of(manifests: Sequence[Path]) -> list[str]:
    """The name of each dataset, its folder's, as it stands in file names; a second one of a name gets a number."""
    folders = [manifest.resolve().parent.name for manifest in manifests]
    counts = [folders[: i + 1].count(name) for i, name in enumerate(folders)]
    return [name if count == 1 else f"{name}-{count}" for name, count in zip(folders, counts, strict=True)]


def main(config: EvaluateConfig) -> None:
    datasets = [load_samples(manifest, config.role, config.protocol) for manifest in config.manifest]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = load_checkpoint(config.checkpoint)
    evaluated: dict[str, tuple[Predictions, Samples]] = {}
    for name, samples in zip(names_of(config.manifest), datasets, strict=True):
        predictions = predict_all(checkpoint, samples, device, config.batch_size)
        evaluated[name] = predictions, samples
        report = score(predictions, samples.labels)
        print(f"{name}, {len(samples):,} faces ({config.role}, protocol {config.protocol})\n\n{report.to_markdown()}\n")
        if config.out:
            report.write_csv(config.out if len(datasets) == 1 else config.out.with_stem(f"{config.out.stem}_{name}"))
    if config.diagnosis:
        title = f"Diagnosis of {config.checkpoint}, {config.role} faces, protocol {config.protocol}"
        write_diagnosis(evaluated, config.diagnosis, title=title)
        print(f"wrote {config.diagnosis / DIAGNOSIS_NAME}")


if __name__ == "__main__":
    try:
        main(tyro.cli(EvaluateConfig))
    except (ManifestError, CheckpointError) as error:
        sys.exit(f"error: {error}")
