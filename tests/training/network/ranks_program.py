"""Run by torchrun in the tests: training that several ranks do as one, so that they can be compared.

Without dropout, and with batch norms that keep their statistics: on CPUs each rank would normalise over its own faces.

torchrun --nproc-per-node 2 tests/training/network/ranks_program.py '[{"manifest": [...], "out": ..., "stop_after": 2}]'
"""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.batches.augmentation import Augmentation
from training.batches.dataset import Batch, Targets
from training.config import TrainConfig
from training.loop.history import EpochSums
from training.loop.interruption import NonFiniteLossError
from training.loop.step import TrainingStep
from training.loop.trainer import Trainer
from training.network.distributed import Ranks, local_device, started_ranks


class Recorded:
    """A step that keeps the whole batch's loss, and has its last rank asked to stop after so many batches."""

    def __init__(self, step: TrainingStep, stop_after: int | None) -> None:
        self.step, self.stop_after, self.losses = step, stop_after, list[float]()

    def prepare(self, batch: Batch, *, side_px: int) -> tuple[torch.Tensor, Targets]:
        return self.step.prepare(batch, side_px=side_px)

    def __call__(
        self, faces: torch.Tensor, targets: Targets, sums: EpochSums, *, seed: tuple[int, ...]
    ) -> torch.Tensor:
        loss = self.step(faces, targets, sums, seed=seed)
        self.losses.append(self.step.ranks.sum(loss.detach()).item())
        if len(self.losses) == self.stop_after and self.step.ranks.rank == self.step.ranks.count - 1:
            signal.raise_signal(signal.SIGTERM)
        return loss


def freeze(network: torch.nn.Module) -> None:
    """Turn dropout off; have batch norms normalise by the statistics of some faces, the same on all ranks."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(32, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for norm in norms:
        norm.eval()
        norm.__dict__["train"] = partial(_unmoved, norm)


def _unmoved(norm: torch.nn.Module, _mode: bool = True) -> torch.nn.Module:
    return norm


def run(ranks: Ranks, manifest: list[str], out: str, stop_after: int | None = None) -> list[float]:
    """The losses of the batches that were trained on, the stop included or the whole run."""
    config = TrainConfig(
        manifest=tuple(map(Path, manifest)),
        out=Path(out),
        resolution=128,
        first_resolutions=(64,),
        epochs=2,
        batch_size=16,
        optimizer="adamw",
        learning_rate=1e-6,  # Adam makes a small gradient's rounding a whole step, which larger ones would amplify
        schedule="one_cycle",
        augmentation=Augmentation(zoom=0.25, shift=0.06, grey_probability=0.2),
        quick_start=True,
        device="cpu",
        precision="fp32",
    )
    trainer = Trainer(config, ranks)
    freeze(trainer.state.network)
    recorded = Recorded(trainer.step, stop_after)
    trainer.__dict__["step"] = recorded
    try:
        trainer.run()
    except KeyboardInterrupt:
        assert stop_after is not None
    return recorded.losses


def main(tasks: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    with started_ranks(local_device("cpu")) as ranks:
        for task in tasks:
            try:
                result: object = run(ranks, **task)
            except NonFiniteLossError as error:
                result = str(error)
            Path(task["out"]).mkdir(exist_ok=True)
            Path(task["out"], f"result_{ranks.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
