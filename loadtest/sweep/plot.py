"""The picture of a sweep: throughput against p99, with the Pareto front and the choice."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.sweep.choice import describe, results, varied
from loadtest.sweep.rows import MODEL
from loadtest.table import IN_FLIGHT, P99, THROUGHPUT


def sweep_figure(table: pd.DataFrame, chosen: int | None, settings: Sequence[str], *, limit_ms: float | None) -> Figure:
    """Draw a point a row of the medians, coloured by model, joined where only the load differs; the front numbered.

    chosen: the index of the row that was chosen.
    """
    figure, axes = plt.subplots(figsize=(10, 6))
    for color, (model, rows) in zip(mpl.color_sequences["tab10"] * 9, table.groupby(MODEL, sort=False), strict=False):
        axes.scatter(rows[P99], rows[THROUGHPUT], s=22, color=color, alpha=0.55, linewidths=0, label=model)
        for _, joined in rows.groupby(list(settings), sort=False):
            ordered = joined.sort_values(IN_FLIGHT)
            axes.plot(ordered[P99], ordered[THROUGHPUT], color=color, alpha=0.2, linewidth=0.8)
    _front(axes, table[table["pareto"]].sort_values(P99), varied(table, settings))
    if chosen is not None:
        point = table.loc[chosen]
        axes.plot(point[P99], point[THROUGHPUT], "*", ms=17, mfc="gold", mec="black", label="chosen", zorder=4)
    if limit_ms is not None:
        axes.axvline(limit_ms, color="grey", linestyle=":", linewidth=1, label=f"limit {limit_ms:g} ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(mpl.ticker.LogFormatter(minor_thresholds=(2, 0.5)))
    axes.set(xlabel="p99 latency (ms)", ylabel="throughput (images/s)", ylim=(0, 1.08 * table[THROUGHPUT].max()))
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _front(axes: Axes, front: pd.DataFrame, names: Sequence[str]) -> None:
    axes.plot(
        front[P99],
        front[THROUGHPUT],
        "o--",
        drawstyle="steps-post",
        color="black",
        mfc="none",
        ms=9,
        lw=1,
        label="Pareto front",
    )
    lines = []
    for number, (_, row) in enumerate(front.iterrows(), 1):
        axes.annotate(str(number), (row[P99], row[THROUGHPUT]), (-5, 7), textcoords="offset points", ha="right")
        lines.append(f"{number}  {describe(row, names)}\n    {results(row)}")
    axes.text(1.02, 0.0, "\n".join(lines), transform=axes.transAxes, fontsize=8, va="bottom")
