"""Finds the first loss that is not finite, looking only now and then: on a GPU, looking waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or NaN; the message names the faces of that batch."""


class FiniteCheck:
    """Keeps the losses of the batches since the last look."""

    def __init__(self) -> None:
        self.unseen: list[tuple[int, Tensor]] = []  # batch number, loss

    def add(self, number: int, loss: Tensor) -> None:
        self.unseen.append((number, loss.detach()))

    def first_broken(self) -> int | None:
        """The number of the first batch whose loss is not finite; afterwards all have been seen."""
        if not self.unseen:
            return None
        finite = torch.stack([loss for _, loss in self.unseen]).isfinite().tolist()
        numbers = [number for (number, _), good in zip(self.unseen, finite, strict=True) if not good]
        self.unseen.clear()
        return numbers[0] if numbers else None
