"""The Pareto front and the choice, on a table whose answers are known."""

from __future__ import annotations

import pandas as pd
import pytest

from loadtest.sweep.choice import choose, describe, swept, varied
from loadtest.sweep.plot import sweep_figure
from loadtest.sweep.rows import SweepError
from loadtest.users.plots import save

KEY = ("model", "queue_delay_us", "instances", "in_flight", "round")
POINTS = {  # (queue delay, in flight): throughput, p99, errors
    ("0", 1): (50.0, 20.0, 0),
    ("0", 4): (96.0, 40.0, 0),
    ("0", 16): (100.0, 160.0, 0),
    ("500", 1): (45.0, 25.0, 0),  # beaten by delay 0
    ("500", 4): (97.0, 45.0, 0),  # more throughput, more latency
    ("500", 16): (300.0, 1.0, 7),  # too good to be true: it failed requests
}


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        ("int8", delay, "1", load, number, throughput * (1, 1, 9)[number - 1], p99 / 2, p99, errors)
        for (delay, load), (throughput, p99, errors) in POINTS.items()
        for number in (1, 2, 3)  # one round is far off, which a median bears
    ]
    return swept(pd.DataFrame(rows, columns=[*KEY, "images_per_s", "p50_ms", "p99_ms", "errors"]), KEY)


def point(row: pd.Series) -> tuple[str, int]:
    return row["queue_delay_us"], row["in_flight"]


def test_medians_are_over_the_rounds(table: pd.DataFrame) -> None:
    assert len(table) == len(POINTS)
    assert set(table["rounds"]) == {3}
    first = table.iloc[0]
    assert (first["images_per_s"], first["least_images_per_s"], first["most_images_per_s"]) == (50.0, 50.0, 450.0)


def test_the_front_has_what_nothing_beats_in_both_and_nothing_that_failed(table: pd.DataFrame) -> None:
    front = {point(row) for _, row in table[table["pareto"]].iterrows()}
    assert front == {("0", 1), ("0", 4), ("500", 4), ("0", 16)}


@pytest.mark.parametrize(
    ("limit_ms", "in_flight", "expected"),
    [
        (None, None, ("0", 4)),  # the knee: 4 % less than the most at a quarter of its latency
        (None, 16, ("0", 16)),
        (50.0, None, ("500", 4)),
        (44.0, None, ("0", 4)),
        (30.0, None, ("0", 1)),
        (50.0, 1, ("0", 1)),
    ],
)
def test_choice(table: pd.DataFrame, limit_ms: float | None, in_flight: int | None, expected: tuple[str, int]) -> None:
    choice = choose(table, p99_limit_ms=limit_ms, in_flight=in_flight)
    assert point(choice.row) == expected
    assert point(table.loc[choice.index]) == expected


def test_a_limit_that_nothing_keeps_is_an_error_with_the_least(table: pd.DataFrame) -> None:
    with pytest.raises(SweepError, match=r"within 5 ms; the least is 20\.0 ms"):
        choose(table, p99_limit_ms=5.0)
    with pytest.raises(SweepError, match="without errors at 64 in flight"):
        choose(table, in_flight=64)


def test_only_what_differs_is_named(table: pd.DataFrame) -> None:
    names = varied(table, ["queue_delay_us", "instances"])
    assert describe(table.iloc[1], names) == "4 in flight, queue delay 0 us"


def test_the_picture_lists_the_front_and_marks_the_choice(table: pd.DataFrame, tmp_path) -> None:
    figure = sweep_figure(table, choose(table).index, ["queue_delay_us", "instances"], limit_ms=50.0)
    [axes] = figure.axes
    texts = "\n".join(text.get_text() for text in axes.texts)
    assert all(f"{number}  " in texts for number in (1, 2, 3, 4))
    assert "2  4 in flight, queue delay 0 us\n    96 images/s, p99 40 ms" in texts
    assert {text.get_text() for text in axes.get_legend().get_texts()} >= {"int8", "Pareto front", "chosen"}
    save(figure, tmp_path / "sweep.png", {"hardware": "2 cores"})
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
