"""What updates the weights: optimiser, learning-rate schedule and moving average, as the settings ask for them."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.config import TrainConfig
from training.network.model import AgeGenderNet


def make_optimizer(network: AgeGenderNet, config: TrainConfig) -> Optimizer:
    if config.optimizer == "adam":
        return Adam(network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True)
    # Decay pulls on what multiplies features, not on biases and batch-norm parameters.
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, config.learning_rate, fused=True)


def make_scheduler(optimizer: Optimizer, config: TrainConfig, *, batches_per_epoch: int) -> LRScheduler:
    """A plateau's is stepped after every epoch, a cycle's after every batch."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=config.plateau_patience)
    steps = config.epochs * batches_per_epoch
    return OneCycleLR(optimizer, config.learning_rate, total_steps=steps, pct_start=config.warm_up_share)


class MovingAverage(AveragedModel):
    """torch's exponential moving average, of the batch-norm statistics too, which otherwise would not belong to it.

    torch's own update copies a counter to the device, and so waits for it, in every step.
    """

    def __init__(self, network: AgeGenderNet, decay: float) -> None:
        self.mix = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(network, multi_avg_fn=self.mix, use_buffers=True)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """The first update takes the weights as they are."""
        ours, theirs = (list(chain(m.parameters(), m.buffers())) for m in (self.module, model))
        weights = [i for i, tensor in enumerate(ours) if tensor.is_floating_point()]  # the rest counts batches
        if self.n_averaged == 0:
            weights = []
        else:
            self.mix([ours[i] for i in weights], [theirs[i] for i in weights], self.n_averaged)
        for i in set(range(len(ours))) - set(weights):
            ours[i].copy_(theirs[i])
        self.n_averaged += 1
