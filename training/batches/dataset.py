"""Batches of packed uint8 images and labels, gathered by index from the mapped file: nothing is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.profiler import record_function

from contract.samples import Labels, Samples
from contract.spec import IMAGE
from training.batches.augmentation import DRAWS
from training.network.distributed import Ranks

GATHER = "step: gather"  # its name in a profile
Positions = NDArray[np.int64]  # [B], of faces in PackedFaces


class Targets(NamedTuple):
    """Labels of B faces; NaN marks one that the face's dataset lacks."""

    age: Tensor  # float32 [B], years
    gender: Tensor  # float32 [B], 1 = male
    emotion: Tensor  # float32 [B, 8], sums to 1
    known: Tensor  # float32 [3], how many faces of the batch, over all ranks, have an age, a gender, an emotion


class Batch(NamedTuple):
    """One rank's B faces of a batch."""

    images: Tensor  # uint8 [B, 128, 128, 3]
    targets: Targets
    draws: Tensor  # float32 [B, DRAWS] in 0..1, what augmentation decides by

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.images, *self.targets, self.draws)

    def to(self, device: torch.device) -> Batch:
        images, *targets, draws = (tensor.to(device, non_blocking=True) for tensor in self.tensors())
        return Batch(images, Targets(*targets), draws)


class PackedFaces:
    """The faces of one or more datasets one after another."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        labels = [part.labels for part in parts]
        self.labels = Labels(*(np.concatenate([getattr(part, f.name) for part in labels]) for f in fields(Labels)))

    def __len__(self) -> int:
        return int(self.ends[-1])

    def names(self, positions: Positions) -> list[str]:
        """Return dataset folder and id of each face, for messages."""
        owners = np.searchsorted(self.ends, positions, side="right")
        starts = self.ends - [len(part) for part in self.parts]
        return [
            f"{self.parts[owner].folder.name}/{self.parts[owner].table['id'].iloc[position - starts[owner]]}"
            for owner, position in zip(owners, positions, strict=True)
        ]

    def images(self, positions: Positions, *, pinned: bool = False) -> Tensor:
        """Gather uint8 [B, 128, 128, 3] from each part's mapped file, into pinned memory where asked for."""
        owners = np.searchsorted(self.ends, positions, side="right")
        images = torch.empty((len(positions), *IMAGE.dims), dtype=torch.uint8, pin_memory=pinned)
        for owner in np.unique(owners):
            part, mine = self.parts[owner], owners == owner
            images.numpy()[mine] = part.packed[part.rows[positions[mine] - (self.ends[owner] - len(part))]]
        return images


@dataclass(frozen=True)
class Batches:
    """Batches of an epoch. Each rank gathers its part of every one; what it draws does not depend on their number."""

    faces: PackedFaces
    positions: Sequence[Positions]  # of each whole batch
    ranks: Ranks
    seed: tuple[int, ...] = (0,)

    def __len__(self) -> int:
        return len(self.positions)

    def gather(self, number: int, *, pinned: bool = False) -> Batch:
        """Gather this rank's part of a batch."""
        with record_function(GATHER):
            return self._gather(self.positions[number], number, pinned=pinned)

    def _gather(self, positions: Positions, number: int, *, pinned: bool) -> Batch:
        mine = self.ranks.share(len(positions))
        draws = np.random.default_rng((*self.seed, number)).random((len(positions), DRAWS), np.float32)
        labels = self.faces.labels[positions]
        known = np.array(
            [(~np.isnan(label)).sum() for label in (labels.age, labels.gender, labels.emotion.sum(1))], np.float32
        )
        arrays = (labels.age[mine], labels.gender[mine], labels.emotion[mine], known, draws[mine])
        *targets, own_draws = (torch.from_numpy(a).pin_memory() if pinned else torch.from_numpy(a) for a in arrays)
        return Batch(self.faces.images(positions[mine], pinned=pinned), Targets(*targets), own_draws)


def in_order(faces: PackedFaces, batch_size: int) -> list[Positions]:
    """Return the batches of an evaluation: all faces, the last batch perhaps incomplete."""
    return _split(np.arange(len(faces)), batch_size)


def shuffled(
    faces: PackedFaces, batch_size: int, *, seed: Sequence[int], repeat: Sequence[float] = ()
) -> list[Positions]:
    """Return the batches of an epoch in an order given by `seed`, the last incomplete one left out.

    `repeat` says how often each part's faces come: 2 shows them twice, 0.5 another half of them each epoch.
    """
    if repeat and len(repeat) != len(faces.parts):
        raise ValueError(f"repeat {tuple(repeat)} must have a number for each of the {len(faces.parts)} manifests")
    rng = np.random.default_rng(seed)
    chosen, start = [], 0
    for part, times in zip(faces.parts, repeat or [1.0] * len(faces.parts), strict=True):
        # A part's share is drawn without replacement before any face comes twice.
        passes = [start + rng.permutation(len(part)) for _ in range(math.ceil(times))]
        chosen += [np.concatenate(passes)[: round(len(part) * times)]] if passes else []
        start += len(part)
    batches = _split(rng.permutation(np.concatenate(chosen)), batch_size)
    # Batch normalisation needs more than one face, so only a set smaller than one batch keeps its incomplete batch.
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < batch_size else batches


def _split(positions: Positions, batch_size: int) -> list[Positions]:
    return [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
