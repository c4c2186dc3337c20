from pathlib import Path

import numpy as np
import pytest
import torch

from contract.samples import load_samples
from training.dataset import PackedFaces, loader, shuffled_loader

CPU = torch.device("cpu")


@pytest.fixture
def mixed(manifest: Path) -> PackedFaces:
    """All training faces of one dataset, then the held-out ones, as if they were two sets."""
    return PackedFaces([load_samples(manifest, "train"), load_samples(manifest, "test")])


def positions_of(faces: PackedFaces, *, seed: int, **options: object) -> list[int]:
    batches = shuffled_loader(faces, 4, CPU, seed=seed, **options)  # type: ignore[arg-type]
    return [int(position) for batch in batches for position in batch.positions]


def test_a_batch_gathers_every_face_from_its_own_set_in_the_order_asked_for(mixed: PackedFaces) -> None:
    first, second = mixed.parts
    batch = mixed[[len(first), 0, len(mixed) - 1]]
    expected = [(second, 0), (first, 0), (second, len(second) - 1)]
    for row, (part, position) in enumerate(expected):
        assert np.array_equal(batch.images[row].numpy(), part.packed[part.rows[position]])
        assert batch.age[row] == part.labels.age[position]
        assert torch.equal(batch.emotion[row], torch.from_numpy(part.labels.emotion[position]))


def test_names_say_the_set_and_the_id(mixed: PackedFaces) -> None:
    first, second = mixed.parts
    names = mixed.names([0, len(first)])
    assert names == [f"{p.folder.name}/{p.table['id'].iloc[0]}" for p in (first, second)]


def test_evaluation_sees_every_face_once_in_order(mixed: PackedFaces) -> None:
    seen = [int(p) for batch in loader(mixed, 5, CPU) for p in batch.positions]
    assert seen == list(range(len(mixed)))


def test_an_epoch_shows_each_set_as_often_as_asked(mixed: PackedFaces) -> None:
    first = len(mixed.parts[0])
    counts = np.bincount(positions_of(mixed, seed=1, repeat=(0.5, 3)), minlength=len(mixed))
    assert counts[:first].max() == 1
    assert counts[first:].min() >= 2  # 3, but for those of an incomplete last batch
    assert abs(counts[:first].sum() - first / 2) <= 4


def test_half_a_set_is_another_half_in_another_epoch(mixed: PackedFaces) -> None:
    halves = [
        {p for p in positions_of(mixed, seed=seed, repeat=(0.5, 0)) if p < len(mixed.parts[0])} for seed in (1, 2)
    ]
    assert halves[0] != halves[1]


def test_the_seed_alone_gives_the_order(mixed: PackedFaces) -> None:
    assert positions_of(mixed, seed=3) == positions_of(mixed, seed=3)
    assert positions_of(mixed, seed=3) != positions_of(mixed, seed=4)


def test_a_broken_epoch_continues_with_the_batches_it_had_left(mixed: PackedFaces) -> None:
    assert positions_of(mixed, seed=5, skip_batches=2) == positions_of(mixed, seed=5)[8:]


def test_a_repeat_for_each_set_or_none(mixed: PackedFaces) -> None:
    with pytest.raises(ValueError, match="repeat"):
        positions_of(mixed, seed=0, repeat=(1.0,))
