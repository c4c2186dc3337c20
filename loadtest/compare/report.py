"""From measurements of several servers to medians, the ratios that matter, and a bar plot.

python -m loadtest.compare.report runs/compare/measurements.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from contract import program
from contract.files import replacing
from evaluation.text import markdown_table
from loadtest.compare.contestants import OURS
from loadtest.table import ERRORS, IN_FLIGHT, P50, P99, THROUGHPUT, listed, medians, read_table
from loadtest.users.plots import save

SERVED = "gRPC tensor"  # the protocol that the ratios of ours are of
AT = 16  # in flight, likewise
KEY = ["precision", "server", "protocol", IN_FLIGHT]


@dataclass(frozen=True)
class Ratio:
    """One thing that ours has to reach against another server, both by their medians at 16 in flight."""

    what: str
    goal: float
    ours: pd.Series
    other: pd.Series
    p99_no_worse: bool = False  # whether ours must also answer as soon

    @property
    def value(self) -> float:
        return float(self.ours[THROUGHPUT] / self.other[THROUGHPUT])

    @property
    def p99_value(self) -> float:
        """Ours over the other's: below 1 is sooner."""
        return float(self.ours[P99] / self.other[P99])

    @property
    def reached(self) -> bool:
        """Never where ours made an error."""
        enough = self.value >= self.goal and (not self.p99_no_worse or self.p99_value <= 1)
        return enough and not self.ours[ERRORS]


def best_peer(table: pd.DataFrame, precision: str) -> pd.Series | None:
    """Return the peer with the most median throughput at 16 in flight; None where none was without errors."""
    rows = table[(table["server"] != OURS) & (table["precision"] == precision) & (table[IN_FLIGHT] == AT)]
    rows = rows[rows[ERRORS] == 0]
    return None if rows.empty else rows.iloc[int(rows[THROUGHPUT].to_numpy().argmax())]


def ratios(table: pd.DataFrame) -> list[Ratio]:
    """Return the ratios for which both sides were measured, from the medians."""
    fp32, int8 = _served(table, "FP32"), _served(table, "INT8")
    best_fp32, best_int8 = best_peer(table, "FP32"), best_peer(table, "INT8")
    same = (table["server"] == "FastAPI + PyTorch") & (table[IN_FLIGHT] == AT) & (table[ERRORS] == 0)
    pytorch = table[same]
    wanted = (
        ("FP32 served / best peer at FP32", 1.0, fp32, best_fp32, True),
        ("INT8 served / best peer at INT8", 1.1, int8, best_int8, True),
        ("INT8 served / best peer at FP32", 3.2, int8, best_fp32, False),
        ("INT8 served / FastAPI + PyTorch", 5.0, int8, None if pytorch.empty else pytorch.iloc[0], False),
    )
    return [
        Ratio(what, goal, ours, other, p99)
        for what, goal, ours, other, p99 in wanted
        if ours is not None and other is not None
    ]


def _served(table: pd.DataFrame, precision: str) -> pd.Series | None:
    same = {"server": OURS, "precision": precision, "protocol": SERVED, IN_FLIGHT: AT}
    rows = table[(table[list(same)] == pd.Series(same)).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def to_markdown(table: pd.DataFrame, conditions: Mapping[str, str]) -> str:
    """Return the conditions, the ratios and the medians."""
    parts = [
        "# Served beside what people would write instead",
        listed(conditions),
        f"Ratios of throughput (medians, {AT} in flight, ours over {SERVED}); p99 likewise, where below 1 is sooner:",
        _ratio_lines(ratios(table)),
    ]
    for in_flight in sorted(table[IN_FLIGHT].unique(), reverse=True):
        parts += [f"## {in_flight} in flight", _median_lines(table[table[IN_FLIGHT] == in_flight])]
    return "\n\n".join([*parts, "![Throughput](report.png)"]) + "\n"


def _ratio_lines(found: Iterable[Ratio]) -> str:
    rows = [
        (
            ratio.what,
            ratio.other["server"],
            f"**{ratio.value:.2f}**",
            f"{ratio.goal:.1f}" + (", p99 no worse" if ratio.p99_no_worse else ""),
            f"{ratio.p99_value:.2f}",
            "yes" if ratio.reached else "no",
        )
        for ratio in found
    ]
    return markdown_table(("what", "against", "ratio", "goal", "p99 ratio", "reached"), rows, text_columns=2)


def _median_lines(table: pd.DataFrame) -> str:
    header = ("server", "precision", "protocol", "images/s", "least - most", "p50 (ms)", "p99 (ms)", "errors")
    ordered = table.sort_values(["precision", THROUGHPUT], ascending=[True, False])
    rows = [
        (
            *(row[name] for name in ("server", "precision", "protocol")),
            f"{row[THROUGHPUT]:.1f}",
            f"{row[f'least_{THROUGHPUT}']:.1f} - {row[f'most_{THROUGHPUT}']:.1f}",
            *(f"{row[name]:.1f}" for name in (P50, P99)),
            str(row[ERRORS]),
        )
        for row in ordered.to_dict("records")
    ]
    return markdown_table(header, rows, text_columns=3)


def bar_figure(table: pd.DataFrame) -> Figure:
    """Draw a bar for each server, protocol and precision at 16 in flight, its whisker over the rounds."""
    rows = table[table[IN_FLIGHT] == AT].sort_values(THROUGHPUT)
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.35 * len(rows)))
    labels = [f"{row.server}, {row.precision} ({row.protocol})" for row in rows.itertuples()]
    colours = ["tab:orange" if server == OURS else "tab:blue" for server in rows["server"]]
    whiskers = [
        rows[THROUGHPUT] - rows[f"least_{THROUGHPUT}"],
        rows[f"most_{THROUGHPUT}"] - rows[THROUGHPUT],
    ]
    bars = axes.barh(labels, rows[THROUGHPUT], xerr=whiskers, color=colours, ecolor="dimgrey", capsize=2)
    axes.bar_label(bars, [f"{value:.0f}" for value in rows[THROUGHPUT]], padding=6)
    axes.set_xlabel(f"images/s, {AT} in flight; median, least and most of the rounds")
    axes.margins(x=0.1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def write_report(measurements: pd.DataFrame, folder: Path, conditions: Mapping[str, str]) -> str:
    """Write report.md and report.png; the Markdown."""
    table = medians(measurements, KEY)
    text = to_markdown(table, conditions)
    save(bar_figure(table), folder / "report.png", dict(conditions))
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def main(table: Path) -> None:
    """Report what a comparison measured, beside its table."""
    measurements, conditions = read_table(table)
    print(write_report(measurements, table.parent, conditions))


if __name__ == "__main__":
    program.run(lambda: main(Path(sys.argv[1])), also=(IndexError, KeyError, ValueError))
