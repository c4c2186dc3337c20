"""Batches of packed uint8 images and labels, gathered by index from the mapped file: nothing is decoded."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from contract.samples import Samples


class Batch(NamedTuple):
    """B faces; NaN marks a label that the face's dataset lacks."""

    images: Tensor  # uint8 [B, 128, 128, 3]
    age: Tensor  # float32 [B], years
    gender: Tensor  # float32 [B], 1 = male
    emotion: Tensor  # float32 [B, 8], sums to 1
    positions: Tensor  # int64 [B], in the samples

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))

    def pin_memory(self) -> Batch:
        return Batch(*(tensor.pin_memory() for tensor in self))


class PackedFaces(Dataset[Batch]):
    """Indexed by a whole batch's positions at once."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.labels = samples.labels

    def __getitem__(self, positions: list[int]) -> Batch:
        index = np.asarray(positions)
        labels = self.labels[index]
        images = self.samples.packed[self.samples.rows[index]]
        return Batch(*(torch.from_numpy(a) for a in (images, labels.age, labels.gender, labels.emotion, index)))


def loader(samples: Samples, batch_size: int, device: torch.device) -> DataLoader[Batch]:
    """All samples in order, for evaluation."""
    return _loader(samples, list(BatchSampler(range(len(samples)), batch_size, drop_last=False)), device)


def shuffled_loader(
    samples: Samples, batch_size: int, device: torch.device, *, seed: int, skip_batches: int = 0
) -> DataLoader[Batch]:
    """In an order given by `seed`, the last incomplete batch left out; `skip_batches` continues a broken epoch."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed)).tolist()
    # Batch normalisation needs more than one face, so only a set smaller than one batch keeps its incomplete batch.
    batches = list(BatchSampler(order, batch_size, drop_last=len(samples) >= batch_size))
    return _loader(samples, batches[skip_batches:], device)


def _loader(samples: Samples, batches: list[list[int]], device: torch.device) -> DataLoader[Batch]:
    on_gpu = device.type == "cuda"
    return DataLoader(
        PackedFaces(samples),
        batch_size=None,  # the sampler already gives whole batches
        sampler=batches,
        generator=torch.Generator(),  # otherwise every iteration draws from the global one, which resuming replays
        num_workers=4 if on_gpu else 0,  # on a CPU, workers would take the cores that compute
        pin_memory=on_gpu,
    )
