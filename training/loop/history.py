"""What an epoch measured: sums gathered on the device, a row of history, the CSV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd
import torch
from torch import Tensor

from contract.files import replacing
from training.batches.dataset import Targets
from training.loop.distributed import Ranks
from training.loop.losses import Losses
from training.network.model import Logits

HISTORY_NAME = "history.csv"

Item = TypeVar("Item")


@dataclass
class Stopwatch:
    """Seconds an epoch took, and of them those this process spent on gathering and augmenting batches."""

    started: float = field(default_factory=time.perf_counter)
    data_s: float = 0.0

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """The same batches; the wait for each counts as data."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.data_s += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    @property
    def total_s(self) -> float:
        return time.perf_counter() - self.started


class EpochMetrics(NamedTuple):
    """Means over an epoch's faces; accuracies are fractions. The age loss is the mean absolute error in years."""

    loss: float
    age_mae_years: float
    gender_loss: float
    emotion_loss: float
    gender_accuracy: float
    emotion_accuracy: float


class EpochSums:
    """Adds up batches without waiting for the device; the sums can be saved and continued in the middle of an epoch."""

    def __init__(self, device: torch.device, sums: Tensor | None = None) -> None:
        self.sums = torch.zeros(9, dtype=torch.float64, device=device) if sums is None else sums.to(device)

    @torch.no_grad()
    def add(self, logits: Logits, targets: Targets, losses: Losses) -> None:
        known_age, known_gender = ~targets.age.isnan(), ~targets.gender.isnan()
        known_emotion = ~targets.emotion.sum(1).isnan()
        gender_correct = ((logits.gender >= 0) == (targets.gender >= 0.5)) & known_gender
        emotion_correct = (logits.emotion.argmax(1) == targets.emotion.argmax(1)) & known_emotion
        self.sums += torch.cat([
            losses.total[None],
            torch.stack([known_age.sum(), known_gender.sum(), known_emotion.sum()]),
            torch.stack([losses.age, losses.gender, losses.emotion]) * targets.known,
            torch.stack([gender_correct.sum(), emotion_correct.sum()]),
        ])  # fmt: skip

    def means(self, batches: int, ranks: Ranks) -> EpochMetrics:
        """Of so many batches, over all ranks."""
        total, ages, genders, emotions, *sums = ranks.sum(self.sums).tolist()
        age, gender, emotion, gender_correct, emotion_correct = (
            value / count if count else float("nan")
            for value, count in zip(sums, (ages, genders, emotions, genders, emotions), strict=True)
        )
        return EpochMetrics(total / max(batches, 1), age, gender, emotion, gender_correct, emotion_correct)


def history_row(
    *,
    epoch: int,
    resolution: int,
    learning_rate: float,
    train: EpochMetrics,
    selection: EpochMetrics,
    images_per_s: float,
    data_share: float,
) -> dict[str, float]:
    """One row of history.csv; `data_share` is the part of the epoch that batches and augmentation took."""
    return {
        "epoch": epoch,
        "resolution": resolution,
        "learning_rate": learning_rate,
        "images_per_s": images_per_s,
        "data_share": data_share,
        **{f"train_{name}": value for name, value in train._asdict().items()},
        **{f"selection_{name}": value for name, value in selection._asdict().items()},
    }


def best_epoch(history: pd.DataFrame) -> pd.Series:
    """The row with the least selection loss; epochs at half resolution do not count beside others."""
    full = history[history["resolution"] == history["resolution"].max()]
    return full.iloc[int(full["selection_loss"].argmin())]


def write_history(rows: list[dict[str, float]], run: Path) -> None:
    with replacing(run / HISTORY_NAME) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def read_history(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / HISTORY_NAME)
