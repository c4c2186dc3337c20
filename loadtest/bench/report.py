"""The report of a bench: the ladder from the raw engine to an encoded picture, and the goals with what was reached."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from contract.files import replacing
from evaluation.text import markdown_table
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
from loadtest.table import ERRORS, P50, P99, ROUND, THROUGHPUT, listed


@dataclass(frozen=True)
class Quantity:
    """One column of one measurement; the mean where it was measured twice in a round, as the engine is."""

    precision: str
    what: str
    in_flight: int
    column: str

    def of(self, rows: pd.DataFrame) -> float:
        """Return its value in one round's rows."""
        same = (rows.precision == self.precision) & (rows.what == self.what) & (rows.in_flight == self.in_flight)
        return float(rows[same][self.column].mean())


@dataclass(frozen=True)
class Goal:
    """What is wanted of numerator / denominator, or of the numerator alone, in each round."""

    name: str
    numerator: Quantity
    denominator: Quantity | None
    wanted: Literal[">=", "<="]
    bound: float
    over_rounds: Callable[[NDArray[np.float64]], float] = np.median

    def of(self, rows: pd.DataFrame) -> float:
        """Return its value in one round's rows."""
        return self.numerator.of(rows) / (self.denominator.of(rows) if self.denominator else 1.0)

    def verdict(self, measured: float) -> str:
        """Return whether the bound is kept, and by how much it is missed."""
        if np.isnan(measured):
            return "not measured"
        reached = measured >= self.bound if self.wanted == ">=" else measured <= self.bound
        if reached or not self.bound:
            return "reached" if reached else "missed"
        return f"missed by {abs(measured / self.bound - 1):.0%}"


BOUNDS = {"FP32": (0.95, 1.10), "INT8": (0.90, 1.30)}  # of throughput and of latency, against the engine's own


def goals(precisions: Collection[str]) -> list[Goal]:
    """Return the goals for the precisions that were measured."""
    wanted = []
    for name in precisions:
        of, (throughput, latency) = partial(Quantity, name), BOUNDS[name]
        served, engine = of(GRPC, MANY, THROUGHPUT), of(BENCHMARK_APP, MANY, THROUGHPUT)
        served_alone, engine_alone = of(GRPC, ALONE, P50), of(IN_PROCESS, ALONE, P50)
        p50, p99, errors = (of(OPEN_LOOP, 0, column) for column in (P50, P99, ERRORS))
        loop = f"{name}: open loop at {OPEN_LOOP_SHARE:.0%}"
        wanted += [
            Goal(f"{name}: served throughput / benchmark_app", served, engine, ">=", throughput),
            Goal(f"{name}: served p50 alone / in-process p50", served_alone, engine_alone, "<=", latency),
            Goal(f"{loop}, p99 / p50", p99, p50, "<=", 3.0),
            Goal(f"{loop}, errors", errors, None, "<=", 0, over_rounds=np.max),
            Goal(f"{name}: start to first answer, s", of(START, 0, "seconds"), None, "<=", 4.0),
        ]
    if {"FP32", "INT8"} <= set(precisions):
        int8, fp32 = (Quantity(name, GRPC, MANY, THROUGHPUT) for name in ("INT8", "FP32"))
        wanted.append(Goal("served throughput INT8 / FP32", int8, fp32, ">=", 3.2))
    return wanted


def goal_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return columns: goal, wanted, measured (over rounds the median, of errors the most), lowest, highest, verdict."""
    rounds = [rows for _, rows in table.groupby(ROUND)]
    rows = []
    for goal in goals(table["precision"].unique()):
        values = np.array([goal.of(rows) for rows in rounds])
        measured = float(goal.over_rounds(values))
        rows.append(
            {
                "goal": goal.name,
                "wanted": f"{goal.wanted} {goal.bound:g}",
                "measured": measured,
                "lowest": values.min(),
                "highest": values.max(),
                "verdict": goal.verdict(measured),
            }
        )
    return pd.DataFrame(rows)


def ladder_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a rung and precision: medians over rounds, and each round's share of its benchmark_app."""
    columns = [THROUGHPUT, P50, P99, ERRORS, "client_cpu_ms", "server_cpu_ms"]
    # The engine is measured twice in a round.
    rounds = table.groupby(["precision", "what", "in_flight", ROUND])[columns].mean().reset_index()
    raw = rounds[rounds.what == BENCHMARK_APP].set_index(["precision", ROUND])[THROUGHPUT]
    rounds["of_engine"] = rounds[THROUGHPUT] / [raw[key] for key in zip(rounds.precision, rounds[ROUND], strict=True)]
    medians = rounds.groupby(["precision", "what", "in_flight"])[[*columns, "of_engine"]].median()
    precisions = table["precision"].unique()
    order = [(p, rung, n) for p in precisions for rung in LADDER for n in (MANY, ALONE)]
    return medians.reindex([key for key in order if key in medians.index]).reset_index()


def ladder_figure(ladder: pd.DataFrame) -> Figure:
    """Draw throughput with many in flight and latency of one alone, rung by rung."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    precisions = list(ladder["precision"].unique())
    height = 0.8 / len(precisions)
    for axes, in_flight, column in zip(panels, (MANY, ALONE), (THROUGHPUT, P50), strict=True):
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
            listed(stated),
            "## Goals",
            "Ratios are computed within each round; measured is their median over the rounds, of errors the most.",
            _markdown(goal_table(table), text_columns=2, decimals=2),
            "## Ladder",
            "of_engine: share of benchmark_app's throughput in the same round. CPU: processor time an image, user and "
            "system, of the load generator and of the server's processes.",
            _markdown(ladder, text_columns=2, decimals=3),
            "![ladder](ladder.png)\n",
        ]
    )
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _markdown(table: pd.DataFrame, *, text_columns: int, decimals: int) -> str:
    cells = table.map(lambda value: _cell(value, decimals))
    return markdown_table(list(table.columns), cells.to_numpy().tolist(), text_columns=text_columns)


def _cell(value: object, decimals: int) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.{decimals}f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)
