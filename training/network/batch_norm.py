"""Batch normalisation over the faces of all ranks on CPUs: torch's own SyncBatchNorm takes GPU tensors only."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Network = TypeVar("Network", bound=nn.Module)


class _SumOverRanks(torch.autograd.Function):
    """A sum that every rank's loss depends on, hence the gradient of each part is the sum of all ranks' gradients."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        [gradient] = gradients
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class CpuSyncBatchNorm(_BatchNorm):
    """[B, C, ...] -> the same, normalised by mean and variance over all ranks' faces; in float32 inside."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm needs [B, C, ...], got {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        dims, shape = [0, *range(2, input.ndim)], [1, -1, *[1] * (input.ndim - 2)]
        values = input.float()
        faces = values.new_tensor([input.numel() / self.num_features])
        total = _SumOverRanks.apply(torch.cat([values.sum(dims), faces]))
        mean, count = total[:-1] / total[-1], total[-1]
        centred = values - mean.view(shape)
        squares = _SumOverRanks.apply(centred.square().sum(dims))
        self._track(mean.detach(), squares.detach() / (count - 1))
        scale = self.weight * (squares / count + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        for running, now in ((self.running_mean, mean), (self.running_var, unbiased_variance)):
            assert running is not None
            running.lerp_(now, self.momentum or 0.0)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1


def synchronise_on_cpu(network: Network) -> Network:
    """The network itself, each of its batch norms replaced by one with the same parameters over all ranks."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                synchronised = CpuSyncBatchNorm(child.num_features, child.eps, child.momentum)
                synchronised.load_state_dict(child.state_dict())
                setattr(parent, name, synchronised)
    return network
