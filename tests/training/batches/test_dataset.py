from pathlib import Path

import numpy as np
import pytest
import torch

from contract.samples import load_samples
from training.batches.dataset import Batches, PackedFaces, in_order, shuffled
from training.network.distributed import Ranks


@pytest.fixture
def mixed(manifest: Path) -> PackedFaces:
    """All training faces of one dataset, then the held-out ones, as if they were two sets."""
    return PackedFaces([load_samples(manifest, "train"), load_samples(manifest, "test")])


def positions_of(faces: PackedFaces, *, seed: int, **options: object) -> list[int]:
    return np.concatenate(shuffled(faces, 4, seed=(seed,), **options)).tolist()  # type: ignore[arg-type]


def test_a_batch_gathers_every_face_from_its_own_set_in_the_order_asked_for(mixed: PackedFaces) -> None:
    first, second = mixed.parts
    batch = Batches(mixed, [np.array([len(first), 0, len(mixed) - 1])], Ranks()).gather(0)
    expected = [(second, 0), (first, 0), (second, len(second) - 1)]
    for row, (part, position) in enumerate(expected):
        assert np.array_equal(batch.images[row].numpy(), part.packed[part.rows[position]])
        assert batch.targets.age[row] == part.labels.age[position]
        assert torch.equal(batch.targets.emotion[row], torch.from_numpy(part.labels.emotion[position]))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_ranks_parts_are_the_batch_and_its_draws_and_each_knows_the_whole_batchs_labels(
    mixed: PackedFaces, count: int
) -> None:
    mixed.labels.gender[:7] = np.nan
    positions = in_order(mixed, 11)
    for number in range(len(positions)):
        whole = Batches(mixed, positions, Ranks(), seed=(3, 1)).gather(number)
        parts = [Batches(mixed, positions, Ranks(r, count), seed=(3, 1)).gather(number) for r in range(count)]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.draws for part in parts]), whole.draws)
        assert torch.equal(torch.cat([part.targets.age for part in parts]), whole.targets.age)
        assert all(torch.equal(part.targets.known, whole.targets.known) for part in parts)
        assert whole.targets.known.tolist() == [
            len(whole.images),
            (~whole.targets.gender.isnan()).sum(),
            len(whole.images),
        ]


def test_every_batch_draws_anew(mixed: PackedFaces) -> None:
    batches = Batches(mixed, in_order(mixed, 8), Ranks(), seed=(3, 1))
    assert not torch.equal(batches.gather(0).draws, batches.gather(1).draws)
    assert torch.equal(batches.gather(1).draws, batches.gather(1).draws)


def test_names_say_the_set_and_the_id(mixed: PackedFaces) -> None:
    first, second = mixed.parts
    names = mixed.names(np.array([0, len(first)]))
    assert names == [f"{p.folder.name}/{p.table['id'].iloc[0]}" for p in (first, second)]


def test_evaluation_sees_every_face_once_in_order(mixed: PackedFaces) -> None:
    seen = np.concatenate(in_order(mixed, 5)).tolist()
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


def test_a_repeat_for_each_set_or_none(mixed: PackedFaces) -> None:
    with pytest.raises(ValueError, match="repeat"):
        positions_of(mixed, seed=0, repeat=(1.0,))
