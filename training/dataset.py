"""Batches of packed uint8 images and labels, gathered by index from the mapped file: nothing is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from contract.samples import Labels, Samples
from contract.spec import IMAGE, Images


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
    """The faces of one or more datasets one after another, indexed by a whole batch's positions at once."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        labels = [part.labels for part in parts]
        self.labels = Labels(*(np.concatenate([getattr(part, f.name) for part in labels]) for f in fields(Labels)))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, positions: list[int]) -> Batch:
        index = np.asarray(positions)
        labels = self.labels[index]
        images = self._images(index)
        return Batch(*(torch.from_numpy(a) for a in (images, labels.age, labels.gender, labels.emotion, index)))

    def names(self, positions: Sequence[int]) -> list[str]:
        """Dataset folder and id of each face, for messages."""
        owners = np.searchsorted(self.ends, positions, side="right")
        starts = self.ends - [len(part) for part in self.parts]
        return [
            f"{self.parts[owner].folder.name}/{self.parts[owner].table['id'].iloc[position - starts[owner]]}"
            for owner, position in zip(owners, positions, strict=True)
        ]

    def _images(self, index: NDArray[np.int64]) -> Images:
        """uint8 [len(index), 128, 128, 3], gathered from each part's mapped file."""
        owners = np.searchsorted(self.ends, index, side="right")
        images = np.empty((len(index), *IMAGE.dims), IMAGE.numpy_dtype)
        for owner in np.unique(owners):
            part, mine = self.parts[owner], owners == owner
            images[mine] = part.packed[part.rows[index[mine] - (self.ends[owner] - len(part))]]
        return images


def loader(faces: PackedFaces, batch_size: int, device: torch.device) -> DataLoader[Batch]:
    """All faces in order, for evaluation."""
    return _loader(faces, list(BatchSampler(range(len(faces)), batch_size, drop_last=False)), device)


def shuffled_loader(
    faces: PackedFaces,
    batch_size: int,
    device: torch.device,
    *,
    seed: int,
    repeat: Sequence[float] = (),
    skip_batches: int = 0,
) -> DataLoader[Batch]:
    """In an order given by `seed`, the last incomplete batch left out; `skip_batches` continues a broken epoch.

    `repeat` says how often each part's faces come: 2 shows them twice, 0.5 another half of them each epoch.
    """
    if repeat and len(repeat) != len(faces.parts):
        raise ValueError(f"repeat {tuple(repeat)} must have a number for each of the {len(faces.parts)} manifests")
    order = _shuffled([len(part) for part in faces.parts], repeat or [1.0] * len(faces.parts), seed)
    # Batch normalisation needs more than one face, so only a set smaller than one batch keeps its incomplete batch.
    batches = list(BatchSampler(order, batch_size, drop_last=len(order) >= batch_size))
    return _loader(faces, batches[skip_batches:], device)


def _shuffled(sizes: Sequence[int], repeat: Sequence[float], seed: int) -> list[int]:
    """Positions of an epoch: of each part its share, drawn without replacement before anything comes twice."""
    generator = torch.Generator().manual_seed(seed)
    chosen, start = [], 0
    for size, times in zip(sizes, repeat, strict=True):
        passes = [torch.randperm(size, generator=generator) for _ in range(math.ceil(times))]
        chosen += [start + torch.cat(passes)[: round(size * times)]] if passes else []
        start += size
    positions = torch.cat(chosen)
    return positions[torch.randperm(len(positions), generator=generator)].tolist()


def _loader(faces: PackedFaces, batches: list[list[int]], device: torch.device) -> DataLoader[Batch]:
    on_gpu = device.type == "cuda"
    return DataLoader(
        faces,
        batch_size=None,  # the sampler already gives whole batches
        sampler=batches,
        generator=torch.Generator(),  # otherwise every iteration draws from the global one, which resuming replays
        num_workers=4 if on_gpu else 0,  # on a CPU, workers would take the cores that compute
        pin_memory=on_gpu,
    )
