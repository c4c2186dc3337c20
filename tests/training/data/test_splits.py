from collections import Counter

import pytest

from training.data.faces import DatasetError
from training.data.splits import HashSplit, RangeSplit, id_ranges


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


def test_given_ids_are_held_out_with_both_ends_and_the_others_are_train() -> None:
    split = RangeSplit(holdout=id_ranges(["610-699", "4000-4499"]), selection=id_ranges(["00560-00609", "7"]))
    ids = ("00007", "00559", "00560", "00609", "00610", "00699", "00700", "04000", "04499", "04500")
    assert [split(id_)[0] for id_ in ids] == list("stsshhthht")
    assert str(split) == "holdout 610-699, 4000-4499; selection 560-609, 7"


@pytest.mark.parametrize("text", ["", "a-b", "5-", "-5", "9-8", "1-2-3", "1..2", "1 - 2"])
def test_what_is_no_range_of_ids_is_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="is no range of ids; give the first and the last one, like 4000-4499"):
        id_ranges([text])


@pytest.mark.parametrize(("holdout", "selection"), [(["1-5"], ["5-9"]), (["1-9", "3-4"], []), ([], ["7", "7"])])
def test_ranges_that_share_an_id_are_refused(holdout: list[str], selection: list[str]) -> None:
    with pytest.raises(DatasetError, match="overlap; give ranges that share no id"):
        RangeSplit(id_ranges(holdout), id_ranges(selection))
