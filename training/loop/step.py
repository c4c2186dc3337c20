"""One step of training: a batch is changed, judged, and what it teaches goes into the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.optim.lr_scheduler import LambdaLR

from contract.spec import IMAGE_SIDE_PX
from training.batches.dataset import Batch, Targets
from training.config import TrainConfig
from training.loop.compilation import Forward, compiled_or_not
from training.loop.distributed import Ranks
from training.loop.history import EpochSums
from training.loop.losses import MultiTaskLoss
from training.loop.state import RunState
from training.network.preprocess import Preprocess

AUGMENT, FORWARD, BACKWARD, UPDATE = "step: augment", "step: forward", "step: backward", "step: update"


@dataclass(frozen=True)
class NetworkInput:
    """Preprocess in the order and layout that cost a training step least; the same to rounding."""

    preprocess: Preprocess

    def __call__(self, images: Tensor, *, side_px: int) -> Tensor:
        """uint8 [B, 128, 128, 3] -> float32 [B, 3, side_px, side_px]."""
        faces = self.cast(images)
        if side_px < IMAGE_SIDE_PX:  # as augmentation shrinks a face that it does not turn
            faces = F.interpolate(faces, (side_px, side_px), mode="bilinear")
        return self.standardised(faces, side_px=side_px)

    def cast(self, images: Tensor) -> Tensor:
        """uint8 [B, 128, 128, 3] -> float32 [B, 3, 128, 128] in 0..1, channels-last as they come: no transposition."""
        return images.permute(0, 3, 1, 2).float().div_(255)

    def standardised(self, faces: Tensor, *, side_px: int) -> Tensor:
        """float32 [B, 3, S, S] in 0..1 -> float32 [B, 3, side_px, side_px].

        Enlarged last, so that less is gone through.
        """
        faces = self.preprocess.normalise(faces).contiguous(memory_format=torch.channels_last)
        return faces if faces.shape[2] == side_px else self.preprocess.enlarge(faces)


@dataclass(frozen=True)
class TrainingStep:
    """Takes this rank's part of a batch and leaves the same new weights on every rank. Nothing waits for the device."""

    config: TrainConfig
    state: RunState
    loss: MultiTaskLoss
    network_input: NetworkInput
    forward: Forward  # the network, over all ranks
    bf16: bool
    ranks: Ranks

    @property
    def compiled(self) -> bool:
        """Whether the network runs compiled, which it may not although the settings ask for it."""
        return hasattr(self.forward, "_orig_mod")  # what torch.compile makes of a module

    def prepare(self, batch: Batch, *, side_px: int) -> tuple[Tensor, Targets]:
        """The faces as the network sees them, float32 [B, 3, side_px, side_px], augmented; and their labels."""
        with record_function(AUGMENT):
            faces = self.network_input.cast(batch.images)
            faces = self.config.augmentation(faces, batch.draws, side_px=min(side_px, IMAGE_SIDE_PX))
            return self.network_input.standardised(faces, side_px=side_px), batch.targets

    def __call__(self, faces: Tensor, targets: Targets, sums: EpochSums, *, seed: tuple[int, ...]) -> Tensor:
        """This rank's part of the loss. All that is random in a step comes from `seed`, so it can be done again."""
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
    """The network as a step calls it: over all ranks, and compiled where the settings ask for it and it works."""

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
