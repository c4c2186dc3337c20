"""What updates the weights: optimiser and learning-rate schedule, as the settings ask for them."""

from __future__ import annotations

import math
from itertools import accumulate

from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from training.config import TrainConfig
from training.network.model import AgeGenderNet

CYCLE_START = 0.04  # of the learning rate: where a cycle begins


def make_optimizer(network: AgeGenderNet, config: TrainConfig) -> Optimizer:
    """Return the settings' optimiser of the network's parameters."""
    if config.optimizer == "adam":
        return Adam(network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True)
    # Decay pulls on what multiplies features, not on biases and batch-norm parameters.
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, config.learning_rate, fused=True)


def make_scheduler(optimizer: Optimizer, config: TrainConfig, *, batches_per_epoch: int) -> LRScheduler:
    """Return the settings' schedule: a plateau's is stepped after every epoch, a cycle's after every batch."""
    if config.schedule == "plateau":
        return ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=config.plateau_patience)
    # A step at twice the resolution computes four times as much and moves the cycle four times as far. So the last
    # epochs, the expensive ones, still learn at a rate that is worth their time.
    costs = [config.resolution_of(epoch) ** 2 for epoch in range(config.epochs)]
    before = [0, *accumulate(costs)]  # the computation done before each epoch, and in all

    def factor(step: int) -> float:
        epoch, batch = divmod(step, batches_per_epoch)
        if epoch >= config.epochs:
            return 0.0
        done = before[epoch] + costs[epoch] * batch / batches_per_epoch
        return one_cycle(done / before[-1], config.warm_up_share)

    return LambdaLR(optimizer, factor)


def one_cycle(done: float, warm_up_share: float) -> float:
    """Return the part of the highest learning rate when `done` (0 to 1) of the computation is done.

    Linear from CYCLE_START to 1, then a cosine to 0 (Smith and Topin 2018, arXiv:1708.07120, as most use it now).
    """
    if done < warm_up_share:
        return CYCLE_START + (1 - CYCLE_START) * done / warm_up_share
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up_share) / (1 - warm_up_share)))
