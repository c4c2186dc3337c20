"""The published multi-task loss: L1 for age, binary cross-entropy for gender, KL divergence to soft emotion labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.dataset import Batch
from training.model import Logits


class Losses(NamedTuple):
    """Scalars: the mean over the faces that have the label, 0 where none has; `total` is weighted."""

    total: Tensor
    age: Tensor
    gender: Tensor
    emotion: Tensor


class LossWeights(NamedTuple):
    """As published; age is in years, so it needs the least."""

    age: float = 1.0
    gender: float = 10.0
    emotion: float = 5.0


def multi_task_loss(logits: Logits, batch: Batch, weights: LossWeights) -> Losses:
    """Compare logits with the batch's labels; a missing label (NaN) adds nothing."""
    age_error = F.l1_loss(logits.age.float(), _without_nan(batch.age), reduction="none")
    gender_error = F.binary_cross_entropy_with_logits(
        logits.gender.float(), _without_nan(batch.gender), reduction="none"
    )
    divergence = F.kl_div(logits.emotion.float().log_softmax(1), _without_nan(batch.emotion), reduction="none").sum(1)
    age = _mean_of_known(age_error, batch.age)
    gender = _mean_of_known(gender_error, batch.gender)
    emotion = _mean_of_known(divergence, batch.emotion.sum(1))
    total = weights.age * age + weights.gender * gender + weights.emotion * emotion
    return Losses(total, age, gender, emotion)


def _without_nan(label: Tensor) -> Tensor:
    """Zero for NaN, so that no NaN reaches a gradient; infinities stay, to be found."""
    return torch.where(label.isnan(), 0, label)


def _mean_of_known(loss: Tensor, label: Tensor) -> Tensor:
    known = ~label.isnan()
    return torch.where(known, loss, 0).sum() / known.sum().clamp(min=1)
