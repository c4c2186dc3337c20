from collections import Counter

import pytest

from training.data.faces import DatasetError
from training.data.splits import HashSplit


def test_fractions_are_met_over_many_ids() -> None:
    split = HashSplit(selection_fraction=0.05, holdout_fraction=0.15)
    counts = Counter(split(f"{i:05d}") for i in range(20_000))
    assert counts["selection"] / 20_000 == pytest.approx(0.05, abs=0.005)
    assert counts["holdout"] / 20_000 == pytest.approx(0.15, abs=0.01)


def test_known_ids_stay_where_they_were_in_every_release() -> None:
    split = HashSplit()
    held_out = {i: part for i in range(12) if (part := split(f"{i:05d}")) != "train"}
    assert held_out == {6: "selection", 9: "holdout"}


def test_a_larger_holdout_keeps_what_was_held_out() -> None:
    small, large = HashSplit(holdout_fraction=0.1), HashSplit(holdout_fraction=0.3)
    ids = [str(i) for i in range(500)]
    assert {i for i in ids if small(i) == "holdout"} < {i for i in ids if large(i) == "holdout"}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0.2), (0.1, -0.1)])
def test_fractions_that_leave_no_training_are_refused(fractions: tuple[float, float]) -> None:
    with pytest.raises(DatasetError, match="sum to less than 1"):
        HashSplit(*fractions)
