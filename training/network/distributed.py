"""Several processes that train one network, as torchrun starts them: who this one is, and what they agree on.

torch.distributed does the work; without torchrun there is one rank, and nothing of it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contract.program import UserError
from training.network.model import AgeGenderNet


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; the main one alone writes files and prints."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0

    def share(self, length: int) -> slice:
        """Return this rank's part of so many faces; the parts of all ranks, in order, are the whole."""
        return slice(self.rank * length // self.count, (self.rank + 1) * length // self.count)

    def maximum(self, *values: int) -> list[int]:
        """Return the largest of each value over all ranks. CPU tensors go by gloo, so no GPU is waited for."""
        if self.count == 1:
            return list(values)
        agreed = torch.tensor(values)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return agreed.tolist()

    def wait(self) -> None:
        """Wait until every rank has come here."""
        self.maximum(0)

    def same(self, values: Sequence[int]) -> bool:
        """Tell whether all ranks have these very values."""
        return self.maximum(*values, *(-value for value in values)) == [*values, *(-value for value in values)]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks, in a new tensor."""
        total = values.clone()
        if self.count > 1:
            dist.all_reduce(total)
        return total

    def synchronised(self, network: AgeGenderNet, device: torch.device) -> AgeGenderNet:
        """Return the network with batch norms over the faces of all ranks, where torch has them: on GPUs.

        On CPUs each rank normalises over its own part of a batch. Names and weights are the same.
        """
        if self.count == 1 or device.type == "cpu":
            return network
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]

    def share_statistics(self, network: nn.Module) -> None:
        """Give every rank the main one's batch-norm statistics, which on CPUs are of its own faces alone."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def replicate(self, network: AgeGenderNet, device: torch.device) -> nn.Module:
        """Return what runs the network forward so that its gradients become the mean over all ranks."""
        if self.count == 1:
            return network
        # Statistics are shared once an epoch (share_statistics): a training step does not read them.
        return DistributedDataParallel(
            network, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )


ALONE = Ranks()


def is_main_process() -> bool:
    """Tell whether this process prints errors that end every rank; known before the ranks have met."""
    return int(os.environ.get("RANK", "0")) == 0


class DeviceError(UserError, RuntimeError):
    """The device that was asked for is not there."""


def local_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of this process: with several GPUs each rank of a machine has its own.

    Raises DeviceError where a GPU is wanted and none is at hand.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError("--device cuda: PyTorch finds no GPU here; see nvidia-smi, or use --device auto")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def started_ranks(device: torch.device) -> Iterator[Ranks]:
    """Connect the ranks that torchrun started until the block ends; without torchrun there is a lone one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
