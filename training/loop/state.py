"""Everything a run needs to go on where it stopped, in one file written in one step."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from contract.files import replacing
from contract.program import UserError
from training.config import TrainConfig
from training.loop.optimizer import make_optimizer, make_scheduler
from training.network.checkpoint import load_checkpoint
from training.network.distributed import Ranks
from training.network.model import AgeGenderNet

STATE_NAME = "last.pt"
# What may differ between the two halves of a run: where and how long it runs, not what it computes.
FREE_SETTINGS = ("out", "epochs", "first_resolutions", "device", "plot_every", "save_every_s", "compile", "restart")


class StateError(UserError, ValueError):
    """The saved run cannot be continued; the message says why and what to do."""


@dataclass
class Progress:
    """Where a run stands; inside an epoch `epoch_sums` continue its metrics. No random state: a step's chance is drawn
    from seed, epoch and batch."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches done of the epoch after those
    best_loss: float = float("inf")
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    epoch_sums: Tensor | None = None  # over all ranks

    def finish_epoch(self) -> None:
        self.epoch, self.batch, self.epoch_sums = self.epoch + 1, 0, None


@dataclass(frozen=True)
class RunState:
    """The parts of a run that change while it trains."""

    network: AgeGenderNet
    optimizer: Optimizer
    scheduler: LRScheduler
    progress: Progress

    @classmethod
    def fresh(
        cls, config: TrainConfig, device: torch.device, ranks: Ranks, *, median_age_years: float, batches_per_epoch: int
    ) -> RunState:
        """Begin a run, the same on every rank. Raises CheckpointError."""
        torch.manual_seed(config.seed)
        network = AgeGenderNet()
        if config.start_from:
            network.load_state_dict(load_checkpoint(config.start_from).network.state_dict())
        elif config.quick_start:
            network.start_quickly(median_age_years=median_age_years)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p *= config.dropout
        # NHWC is what oneDNN's and cuDNN's fast convolutions read.
        network = ranks.synchronised(network, device).to(device).to(memory_format=torch.channels_last)
        optimizer = make_optimizer(network, config)
        scheduler = make_scheduler(optimizer, config, batches_per_epoch=batches_per_epoch)
        return cls(network, optimizer, scheduler, Progress())

    def save(self, config: TrainConfig) -> None:
        """Write everything into the run's folder, in one step."""
        content = {
            "config": plain(config),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "progress": asdict(self.progress),
        }
        with replacing(config.out / STATE_NAME) as temporary:
            torch.save(content, temporary)

    def load(self, config: TrainConfig, device: torch.device) -> None:
        """Fill in what `save` wrote. Raises StateError for a broken file or one of a run with other settings."""
        path = config.out / STATE_NAME
        try:
            content = torch.load(path, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise StateError(f"{path} is broken ({error}); start over with --restart") from error
        before, now = content["config"], plain(config)
        if changed := [name for name in now if name not in FREE_SETTINGS and now[name] != before.get(name)]:
            listed = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in changed)
            raise StateError(f"{config.out} holds a run with other settings ({listed}); use another --out or --restart")
        # What is still to come may be planned anew; what is done stays as it was.
        done = [int(row["resolution"]) for row in content["progress"]["history"]]
        if done != [config.resolution_of(epoch) for epoch in range(len(done))]:
            sides = " ".join(map(str, done))
            raise StateError(f"{config.out} trained its epochs at {sides}; give --first-resolutions that begin so")
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(content["scheduler"])
        for name, value in content["progress"].items():
            setattr(self.progress, name, value)


def plain(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as JSON can hold them."""
    return {name: _plain(value) for name, value in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
