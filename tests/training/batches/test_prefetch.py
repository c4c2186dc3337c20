import threading

import pytest

from training.batches.prefetch import read_ahead


def test_items_come_in_order_made_by_another_thread_a_bounded_number_ahead() -> None:
    made: list[int] = []
    threads = set()

    def make(item: int) -> int:
        threads.add(threading.current_thread())
        made.append(item)
        return item * item

    got = []
    for value in read_ahead(make, range(10), ahead=2):
        got.append(value)
        assert len(made) <= len(got) + 2
    assert got == [item * item for item in range(10)]
    assert threading.current_thread() not in threads


def test_what_goes_wrong_in_the_thread_is_raised_in_its_turn() -> None:
    def make(item: int) -> int:
        return 1 // (2 - item)

    ahead = read_ahead(make, range(5))
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_leaving_early_leaves_no_thread() -> None:
    ahead = read_ahead(str, range(1000))
    next(ahead)
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]
