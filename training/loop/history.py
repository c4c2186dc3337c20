"""What an epoch measured: sums gathered on the device, a row of history, the CSV."""

from __future__ import annotations

import math
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
from training.loop.losses import Losses, LossWeights
from training.network.distributed import Ranks
from training.network.model import Logits

HISTORY_NAME = "history.csv"

Item = TypeVar("Item")


@dataclass
class Stopwatch:
    """Seconds an epoch took, and of them those this process spent on gathering and augmenting batches."""

    started: float = field(default_factory=time.perf_counter)
    data_s: float = 0.0

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """Yield the same batches; the wait for each counts as data."""
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
    """Adds up what an epoch measures, without waiting for the device; can be saved and continued inside an epoch."""

    FIELDS = (
        *("ages", "genders", "emotions"),  # faces whose label is known
        *("age_error_years", "gender_loss", "emotion_loss"),  # over those faces
        *("genders_correct", "emotions_correct"),
    )

    def __init__(self, device: torch.device, sums: Tensor | None = None) -> None:
        self.sums = (
            torch.zeros(len(self.FIELDS), dtype=torch.float64, device=device) if sums is None else sums.to(device)
        )

    @torch.no_grad()
    def add(self, logits: Logits, targets: Targets, losses: Losses) -> None:
        """Add a batch."""
        known_age, known_gender = ~targets.age.isnan(), ~targets.gender.isnan()
        known_emotion = ~targets.emotion.sum(1).isnan()
        gender_correct = ((logits.gender >= 0) == (targets.gender >= 0.5)) & known_gender
        emotion_correct = (logits.emotion.argmax(1) == targets.emotion.argmax(1)) & known_emotion
        age_known, gender_known, emotion_known = targets.known  # a loss is this rank's part of a mean over them
        batch = {
            "ages": known_age.sum(),
            "genders": known_gender.sum(),
            "emotions": known_emotion.sum(),
            "age_error_years": losses.age * age_known,
            "gender_loss": losses.gender * gender_known,
            "emotion_loss": losses.emotion * emotion_known,
            "genders_correct": gender_correct.sum(),
            "emotions_correct": emotion_correct.sum(),
        }
        self.sums += torch.stack([batch[name].double() for name in self.FIELDS])

    def means(self, weights: LossWeights, ranks: Ranks) -> EpochMetrics:
        """Return the means over all ranks' faces; `loss` weighs those of the heads, so no face counts twice in it."""
        of = dict(zip(self.FIELDS, ranks.sum(self.sums).tolist(), strict=True))
        age = _mean(of["age_error_years"], of["ages"])
        gender, emotion = _mean(of["gender_loss"], of["genders"]), _mean(of["emotion_loss"], of["emotions"])
        heads = zip(weights, (age, gender, emotion), (of["ages"], of["genders"], of["emotions"]), strict=True)
        loss = sum(weight * mean for weight, mean, faces in heads if faces)
        return EpochMetrics(
            loss, age, gender, emotion,
            gender_accuracy=_mean(of["genders_correct"], of["genders"]),
            emotion_accuracy=_mean(of["emotions_correct"], of["emotions"]),
        )  # fmt: skip


def _mean(total: float, count: float) -> float:
    return total / count if count else math.nan


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
    """Return a row of history.csv; `data_share` is the part of the epoch that batches and augmentation took."""
    return {
        "epoch": epoch,
        "resolution": resolution,
        "learning_rate": learning_rate,
        "images_per_s": images_per_s,
        "data_share": data_share,
        **{f"train_{name}": value for name, value in train._asdict().items()},
        **{f"selection_{name}": value for name, value in selection._asdict().items()},
    }


def epoch_line(row: dict[str, float], epochs: int) -> str:
    """Say a row of history in a line."""
    return (
        f"epoch {row['epoch']:.0f}/{epochs}: loss {row['train_loss']:.3f}, selection {row['selection_loss']:.3f}, "
        f"age MAE {row['selection_age_mae_years']:.2f} years, gender {row['selection_gender_accuracy']:.1%}, "
        f"emotion {row['selection_emotion_accuracy']:.1%}; {row['images_per_s']:.0f} images/s, "
        f"data {row['data_share']:.1%} of the time"
    )


def best_epoch(history: pd.DataFrame) -> pd.Series:
    """Return the row with the least selection loss; epochs at lower resolutions do not compare with it."""
    full = history[history["resolution"] == history["resolution"].max()]
    return full.iloc[int(full["selection_loss"].argmin())]


def write_history(rows: list[dict[str, float]], run: Path) -> None:
    """Write history.csv into a run's folder in one step."""
    with replacing(run / HISTORY_NAME) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def read_history(run: Path) -> pd.DataFrame:
    """Read a run's history.csv, a row an epoch."""
    return pd.read_csv(run / HISTORY_NAME)
