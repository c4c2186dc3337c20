"""The report of a bench: the ladder from the raw engine to an encoded picture, and the goals with what was reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from contract.files import replacing
from loadtest.bench.conditions import to_markdown
from loadtest.bench.rows import (
    ALONE,
    BENCHMARK_APP,
    GRPC,
    IN_PROCESS,
    LADDER,
    MANY,
    OPEN_LOOP,
    OPEN_LOOP_SHARE,
    START,
)


@dataclass(frozen=True)
class Goal:
    """A ratio that is wanted, computed within each round."""

    name: str
    bound: float
    at_least: bool
    value: Callable[[pd.DataFrame], float]  # of one round's rows
    over_rounds: Callable[[NDArray[np.float64]], float] = np.median

    def verdict(self, measured: float) -> str:
        if np.isnan(measured):
            return "not measured"
        reached = measured >= self.bound if self.at_least else measured <= self.bound
        if reached or not self.bound:
            return "reached" if reached else "missed"
        return f"missed by {abs(measured / self.bound - 1):.0%}"


def goals(precisions: tuple[str, ...]) -> list[Goal]:
    """The goals for the precisions that were measured."""
    bounds = {"FP32": (0.95, 1.10), "INT8": (0.90, 1.30)}
    wanted = []
    for precision in precisions:
        throughput, latency = bounds[precision]
        wanted += [
            Goal(f"{precision}: served throughput / benchmark_app", throughput, True, _throughput_ratio(precision)),
            Goal(f"{precision}: served p50 alone / in-process p50", latency, False, _latency_ratio(precision)),
            Goal(
                f"{precision}: open loop at {OPEN_LOOP_SHARE:.0%}, p99 / p50", 3.0, False, _open_loop_ratio(precision)
            ),
            Goal(
                f"{precision}: open loop at {OPEN_LOOP_SHARE:.0%}, errors",
                0,
                False,
                _open_loop_errors(precision),
                np.max,
            ),
            Goal(f"{precision}: start to first answer, s", 4.0, False, _start_s(precision)),
        ]
    if {"FP32", "INT8"} <= set(precisions):
        wanted.append(Goal("served throughput INT8 / FP32", 3.2, True, _int8_ratio))
    return wanted


def _of(table: pd.DataFrame, precision: str, what: str, in_flight: int, column: str) -> float:
    """The mean where it was measured twice in a round, as the engine is."""
    rows = table[(table.precision == precision) & (table.what == what) & (table.in_flight == in_flight)]
    return float(rows[column].mean())


def _throughput_ratio(precision: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: (
        _of(table, precision, GRPC, MANY, "images_per_s") / _of(table, precision, BENCHMARK_APP, MANY, "images_per_s")
    )


def _latency_ratio(precision: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: (
        _of(table, precision, GRPC, ALONE, "p50_ms") / _of(table, precision, IN_PROCESS, ALONE, "p50_ms")
    )


def _open_loop_ratio(precision: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: _of(table, precision, OPEN_LOOP, 0, "p99_ms") / _of(table, precision, OPEN_LOOP, 0, "p50_ms")


def _open_loop_errors(precision: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: _of(table, precision, OPEN_LOOP, 0, "errors")


def _start_s(precision: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: _of(table, precision, START, 0, "seconds")


def _int8_ratio(table: pd.DataFrame) -> float:
    return _of(table, "INT8", GRPC, MANY, "images_per_s") / _of(table, "FP32", GRPC, MANY, "images_per_s")


def goal_table(table: pd.DataFrame) -> pd.DataFrame:
    """Columns: goal, wanted, measured (over rounds the median, of errors the most), lowest, highest, verdict."""
    rounds = [rows for _, rows in table.groupby("round")]
    rows = []
    for goal in goals(tuple(table["precision"].unique())):
        values = np.array([goal.value(rows) for rows in rounds])
        rows.append(
            {
                "goal": goal.name,
                "wanted": f"{'>=' if goal.at_least else '<='} {goal.bound:g}",
                "measured": float(goal.over_rounds(values)),
                "lowest": values.min(),
                "highest": values.max(),
                "verdict": goal.verdict(float(goal.over_rounds(values))),
            }
        )
    return pd.DataFrame(rows)


def ladder_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row a rung and precision: medians over rounds, and each round's share of its benchmark_app."""
    columns = ["images_per_s", "p50_ms", "p99_ms", "errors", "client_cpu_ms", "server_cpu_ms"]
    # The engine is measured twice in a round.
    rounds = table.groupby(["precision", "what", "in_flight", "round"])[columns].mean().reset_index()
    raw = rounds[rounds.what == BENCHMARK_APP].set_index(["precision", "round"])["images_per_s"]
    rounds["of_engine"] = rounds["images_per_s"] / [
        raw[key] for key in zip(rounds.precision, rounds["round"], strict=True)
    ]
    medians = rounds.groupby(["precision", "what", "in_flight"])[[*columns, "of_engine"]].median()
    precisions = table["precision"].unique()
    order = [(p, rung, n) for p in precisions for rung in LADDER for n in (MANY, ALONE)]
    return medians.reindex([key for key in order if key in medians.index]).reset_index()


def ladder_figure(ladder: pd.DataFrame) -> Figure:
    """Throughput with many in flight and latency of one alone, rung by rung."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    precisions = list(ladder["precision"].unique())
    height = 0.8 / len(precisions)
    for axes, in_flight, column in zip(panels, (MANY, ALONE), ("images_per_s", "p50_ms"), strict=True):
        for number, precision in enumerate(precisions):
            rows = ladder[(ladder.precision == precision) & (ladder.in_flight == in_flight)].set_index("what")
            values = rows[column].reindex(LADDER)
            bars = axes.barh(np.arange(len(LADDER)) + number * height, values, height, label=precision)
            labels = ["" if np.isnan(value) else f"{value:.3g}" for value in values]
            axes.bar_label(bars, labels, padding=2, fontsize=8)
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(np.arange(len(LADDER)) + height * (len(precisions) - 1) / 2, LADDER)
    panels[0].invert_yaxis()
    panels[0].set_xlabel(f"images/s, {MANY} in flight")
    panels[1].set_xlabel("p50 latency of one alone (ms)")
    panels[1].legend(frameon=False, loc="upper right")
    figure.tight_layout()
    return figure


def write_report(table: pd.DataFrame, stated: Mapping[str, str], folder: Path) -> str:
    """Write report.md and ladder.png into the folder; the report's text."""
    ladder = ladder_table(table)
    figure = ladder_figure(ladder)
    with replacing(folder / "ladder.png") as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    text = "\n\n".join(
        [
            "# From the raw engine to a client",
            to_markdown(stated),
            "## Goals",
            "Ratios are computed within each round; measured is their median over the rounds, of errors the most.",
            _markdown(goal_table(table), decimals=2),
            "## Ladder",
            "of_engine: share of benchmark_app's throughput in the same round. CPU: processor time an image, user and "
            "system, of the load generator and of the server's processes.",
            _markdown(ladder, decimals=3),
            "![ladder](ladder.png)\n",
        ]
    )
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _markdown(table: pd.DataFrame, *, decimals: int) -> str:
    cells = table.map(lambda value: _cell(value, decimals))
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns), *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object, decimals: int) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.{decimals}f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)
