"""What updates the weights: optimiser, learning-rate schedule and moving average, as the settings ask for them."""

from __future__ import annotations

from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.config import TrainConfig
from training.model import AgeGenderNet


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


def make_average(network: AgeGenderNet, decay: float) -> AveragedModel | None:
    """An exponential moving average of the weights; none for a decay of 0."""
    if not decay:
        return None
    # Batch-norm statistics too, which otherwise would not belong to the averaged weights.
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
