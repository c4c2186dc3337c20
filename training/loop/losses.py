"""The published multi-task loss: L1 for age, binary cross-entropy for gender, KL divergence to soft emotion labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
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

    def __call__(self, logits: Logits, targets: Targets) -> Losses:
        age_error = F.l1_loss(logits.age.float(), _without_nan(targets.age), reduction="none")
        gender_error = F.binary_cross_entropy_with_logits(
            logits.gender.float(), _without_nan(targets.gender), reduction="none"
        )
        emotion_error = F.kl_div(
            logits.emotion.float().log_softmax(1), _without_nan(targets.emotion), reduction="none"
        ).sum(1)
        sums = torch.stack([
            _sum_of_known(age_error, targets.age),
            _sum_of_known(gender_error, targets.gender),
            _sum_of_known(emotion_error, targets.emotion.sum(1)),
        ])  # fmt: skip
        age, gender, emotion = sums / targets.known.clamp(min=1)
        total = self.weights.age * age + self.weights.gender * gender + self.weights.emotion * emotion
        return Losses(total, age, gender, emotion)


def _without_nan(label: Tensor) -> Tensor:
    """Zero for NaN, so that no NaN reaches a gradient; infinities stay, to be found."""
    return torch.where(label.isnan(), 0, label)


def _sum_of_known(loss: Tensor, label: Tensor) -> Tensor:
    return torch.where(label.isnan(), 0, loss).sum()
