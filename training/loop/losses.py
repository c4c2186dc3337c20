"""The published multi-task loss: L1 for age, binary cross-entropy for gender, KL divergence to soft emotion labels.

Not published, and off unless asked for: smoothing of the emotion labels, and weights that balance the emotions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.batches.dataset import Targets
from training.network.model import Logits


class Losses(NamedTuple):
    """Scalars: the mean over the batch's faces that have the label, 0 where none has; `total` is weighted.

    With several ranks each has its part of that mean: their sum is the batch's.
    """

    total: Tensor
    age: Tensor
    gender: Tensor
    emotion: Tensor


class LossWeights(NamedTuple):
    """As published; age is in years, so it needs the least."""

    age: float = 1.0
    gender: float = 10.0
    emotion: float = 5.0


@dataclass(frozen=True)
class MultiTaskLoss:
    """Compares logits with a batch's labels; a missing label (NaN) adds nothing."""

    weights: LossWeights
    emotion_smoothing: float = 0.0  # share of the label spread over all emotions (Szegedy et al. 2016, section 7)
    emotion_weights: Tensor | None = None  # [8], of a face by the emotion it is labelled with

    def __call__(self, logits: Logits, targets: Targets) -> Losses:
        age_error = F.l1_loss(logits.age.float(), _without_nan(targets.age), reduction="none")
        gender_error = F.binary_cross_entropy_with_logits(
            logits.gender.float(), _without_nan(targets.gender), reduction="none"
        )
        emotion_error = self._divergence(logits.emotion, targets.emotion)
        sums = torch.stack([
            _sum_of_known(age_error, targets.age),
            _sum_of_known(gender_error, targets.gender),
            _sum_of_known(emotion_error, targets.emotion.sum(1)),
        ])  # fmt: skip
        age, gender, emotion = sums / targets.known.clamp(min=1)
        total = self.weights.age * age + self.weights.gender * gender + self.weights.emotion * emotion
        return Losses(total, age, gender, emotion)

    def _divergence(self, logits: Tensor, label: Tensor) -> Tensor:
        """KL divergence to the labels, [B]."""
        known = _without_nan(label)
        smooth = known * (1 - self.emotion_smoothing) + self.emotion_smoothing / label.shape[1]
        divergence = F.kl_div(logits.float().log_softmax(1), smooth, reduction="none").sum(1)
        return divergence if self.emotion_weights is None else divergence * self.emotion_weights[known.argmax(1)]


def balancing_weights(emotion: NDArray[np.float32], balance: float) -> Tensor:
    """Weights [8] proportional to an emotion's frequency to the power of -`balance`, 1 in the mean over the faces.

    `emotion` are the labels [N, 8] of all training faces, NaN where one is missing.
    """
    known = emotion[~np.isnan(emotion.sum(1))]
    counts = np.bincount(known.argmax(1), minlength=emotion.shape[1]) if len(known) else np.zeros(emotion.shape[1])
    raw = np.maximum(counts, 1) ** -balance
    return torch.from_numpy(raw * counts.sum() / max((raw * counts).sum(), 1)).float()


def _without_nan(label: Tensor) -> Tensor:
    """Zero for NaN, so that no NaN reaches a gradient; infinities stay, to be found."""
    return torch.where(label.isnan(), 0, label)


def _sum_of_known(loss: Tensor, label: Tensor) -> Tensor:
    return torch.where(label.isnan(), 0, loss).sum()
