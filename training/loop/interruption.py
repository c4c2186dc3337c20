"""What interrupts a run between two batches: a wish to stop, or a loss that is not finite."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor

from contract.program import UserError


class NonFiniteLossError(UserError, RuntimeError):
    """The loss became infinite or NaN; the message names the faces of that batch."""


class StopRequest:
    """Whether Ctrl-C or SIGTERM asked this process to stop, which the loop does when the batch at hand is saved.

    `patient` ignores a second Ctrl-C: torchrun sends its own after ours.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.made = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as requests as long as the block lasts."""
        before = {number: signal.signal(number, self._make) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _make(self, number: int, _frame: FrameType | None) -> None:
        self.made = True
        if not self.patient:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)  # a second one does not wait


class FiniteCheck:
    """Keeps the losses of the batches since the last look: on a GPU, looking at each would wait for the device."""

    def __init__(self) -> None:
        self.unseen: list[tuple[int, Tensor]] = []  # batch number, loss

    def add(self, number: int, loss: Tensor) -> None:
        """Keep the loss of a batch."""
        self.unseen.append((number, loss.detach()))

    def first_broken(self) -> int | None:
        """Return the number of the first batch whose loss is not finite, and forget all losses."""
        if not self.unseen:
            return None
        finite = torch.stack([loss for _, loss in self.unseen]).isfinite().tolist()
        numbers = [number for (number, _), good in zip(self.unseen, finite, strict=True) if not good]
        self.unseen.clear()
        return numbers[0] if numbers else None
