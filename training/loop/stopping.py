"""Ctrl-C and SIGTERM as a wish that the loop grants when the batch at hand is done and saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether this process was asked to stop. `patient` ignores a second Ctrl-C: torchrun sends its own after ours."""

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.made = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals make the request as long as the block lasts."""
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
