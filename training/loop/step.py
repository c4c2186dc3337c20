"""One step of training: augment a batch, judge the network's answers, update its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.optim.lr_scheduler import LambdaLR

from contract.spec import IMAGE_SIDE_PX
from training.batches.dataset import Batch, Targets
from training.config import TrainConfig
from training.loop.compilation import Forward, compiled_or_not
from training.loop.history import EpochSums
from training.loop.losses import MultiTaskLoss
from training.loop.state import RunState
from training.network.distributed import Ranks
from training.network.preprocess import TrainingPreprocess

AUGMENT, FORWARD, BACKWARD, UPDATE = "step: augment", "step: forward", "step: backward", "step: update"


@dataclass(frozen=True)
class TrainingStep:
    """Learns from this rank's part of a batch, leaving equal weights on every rank; never waits for the device."""

    config: TrainConfig
    state: RunState
    loss: MultiTaskLoss
    preprocess: TrainingPreprocess
    forward: Forward  # the network, over all ranks
    bf16: bool
    ranks: Ranks

    @property
    def compiled(self) -> bool:
        """Tell whether the network runs compiled, which it may not although the settings ask for it."""
        return hasattr(self.forward, "_orig_mod")  # what torch.compile makes of a module

    def prepare(self, batch: Batch, *, side_px: int) -> tuple[Tensor, Targets]:
        """Return the faces as the network sees them, float32 [B, 3, side_px, side_px], augmented, and their labels."""
        with record_function(AUGMENT):
            faces = self.preprocess.cast(batch.images)
            faces = self.config.augmentation(faces, batch.draws, side_px=min(side_px, IMAGE_SIDE_PX))
            return self.preprocess.standardise(faces, side_px=side_px), batch.targets

    def __call__(self, faces: Tensor, targets: Targets, sums: EpochSums, *, seed: tuple[int, ...]) -> Tensor:
        """Learn and return this rank's part of the loss; all that is random comes from `seed`, to be repeated."""
        torch.manual_seed(_number((*seed, self.ranks.rank)))  # dropout: other faces, other masks
        with record_function(FORWARD):
            with torch.autocast(faces.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.forward(faces)
            losses = self.loss(logits, targets)
            sums.add(logits, targets, losses)
        with record_function(BACKWARD):
            self.state.optimizer.zero_grad()
            # The ranks' gradients are averaged, but it is the sum of their parts of the loss that is the batch's.
            (losses.total * self.ranks.count).backward()  # type: ignore[no-untyped-call]
        with record_function(UPDATE):
            self._update()
        return losses.total

    def _update(self) -> None:
        state = self.state
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), self.config.max_grad_norm)
        state.optimizer.step()
        if isinstance(state.scheduler, LambdaLR):
            state.scheduler.step()


def training_forward(
    state: RunState, config: TrainConfig, device: torch.device, ranks: Ranks, *, bf16: bool
) -> Forward:
    """Return the network as a step calls it: over all ranks, compiled where the settings ask for it and it works."""

    def replicate() -> torch.nn.Module:
        return ranks.replicate(state.network, device)

    if not config.compile:
        return replicate()
    state.network.train()
    faces = ranks.share(config.batch_size)
    sides = {config.resolution_of(epoch) for epoch in range(config.epochs)}
    examples = [
        torch.zeros(faces.stop - faces.start, 3, side, side, device=device).contiguous(
            memory_format=torch.channels_last
        )
        for side in sorted(sides)
    ]
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return compiled_or_not(replicate, state.network, examples, ranks)


def _number(seed: tuple[int, ...]) -> int:
    """One seed of several numbers, unlike those of their neighbours."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
