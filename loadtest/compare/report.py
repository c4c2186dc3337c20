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
from loadtest.compare.contestants import OURS
from loadtest.users.plots import save

SERVED = "gRPC tensor"  # the protocol that the ratios of ours are of
AT = 16  # in flight, likewise
KEY = ["precision", "server", "protocol", "in_flight"]
MEDIANS = ["images_per_s", "p50_ms", "p99_ms"]


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
        return float(self.ours["images_per_s"] / self.other["images_per_s"])

    @property
    def p99_value(self) -> float:
        """Ours over the other's: below 1 is sooner."""
        return float(self.ours["p99_ms"] / self.other["p99_ms"])

    @property
    def reached(self) -> bool:
        """Never where ours made an error."""
        enough = self.value >= self.goal and (not self.p99_no_worse or self.p99_value <= 1)
        return enough and not self.ours["errors"]


def medians(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each server, protocol and load: medians over the rounds, least and most throughput, all errors."""
    groups = table.groupby(KEY, sort=False)
    spread = groups["images_per_s"].agg(least="min", most="max", rounds="count")
    return groups[MEDIANS].median().join(spread).join(groups["errors"].sum()).reset_index()


def best_peer(table: pd.DataFrame, precision: str) -> pd.Series | None:
    """Of the medians at 16 in flight the peer with the most throughput; None where none was measured without errors."""
    rows = table[(table["server"] != OURS) & (table["precision"] == precision) & (table["in_flight"] == AT)]
    rows = rows[rows["errors"] == 0]
    return None if rows.empty else rows.iloc[int(rows["images_per_s"].to_numpy().argmax())]


def ratios(table: pd.DataFrame) -> list[Ratio]:
    """Of the medians, those for which both sides were measured."""
    fp32, int8 = _served(table, "FP32"), _served(table, "INT8")
    best_fp32, best_int8 = best_peer(table, "FP32"), best_peer(table, "INT8")
    same = (table["server"] == "FastAPI + PyTorch") & (table["in_flight"] == AT) & (table["errors"] == 0)
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
    same = {"server": OURS, "precision": precision, "protocol": SERVED, "in_flight": AT}
    rows = table[(table[list(same)] == pd.Series(same)).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def to_markdown(table: pd.DataFrame, conditions: Mapping[str, str]) -> str:
    """The conditions, the ratios and the medians."""
    parts = [
        "# Served beside what people would write instead",
        "\n".join(f"* {name}: {value}" for name, value in conditions.items()),
        f"Ratios of throughput (medians, {AT} in flight, ours over {SERVED}); p99 likewise, where below 1 is sooner:",
        _ratio_lines(ratios(table)),
    ]
    for in_flight in sorted(table["in_flight"].unique(), reverse=True):
        parts += [f"## {in_flight} in flight", _median_lines(table[table["in_flight"] == in_flight])]
    return "\n\n".join([*parts, "![Throughput](report.png)"]) + "\n"


def _ratio_lines(found: Iterable[Ratio]) -> str:
    lines = ["| what | against | ratio | goal | p99 ratio | reached |", "|---|---|---:|---:|---:|:---:|"]
    for ratio in found:
        goal = f"{ratio.goal:.1f}" + (", p99 no worse" if ratio.p99_no_worse else "")
        lines.append(
            f"| {ratio.what} | {ratio.other['server']} | **{ratio.value:.2f}** | {goal} | {ratio.p99_value:.2f} "
            f"| {'yes' if ratio.reached else 'no'} |"
        )
    return "\n".join(lines)


def _median_lines(table: pd.DataFrame) -> str:
    lines = [
        "| server | precision | protocol | images/s | least - most | p50 (ms) | p99 (ms) | errors |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    rows = table.sort_values(["precision", "images_per_s"], ascending=[True, False]).to_dict("records")
    lines += [
        f"| {row['server']} | {row['precision']} | {row['protocol']} | {row['images_per_s']:.1f} "
        f"| {row['least']:.1f} - {row['most']:.1f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} | {row['errors']} |"
        for row in rows
    ]
    return "\n".join(lines)


def bar_figure(table: pd.DataFrame) -> Figure:
    """A bar for each server, protocol and precision at 16 in flight, its whisker from the least to the most round."""
    rows = table[table["in_flight"] == AT].sort_values("images_per_s")
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.35 * len(rows)))
    labels = [f"{row.server}, {row.precision} ({row.protocol})" for row in rows.itertuples()]
    colours = ["tab:orange" if server == OURS else "tab:blue" for server in rows["server"]]
    whiskers = [rows["images_per_s"] - rows["least"], rows["most"] - rows["images_per_s"]]
    bars = axes.barh(labels, rows["images_per_s"], xerr=whiskers, color=colours, ecolor="dimgrey", capsize=2)
    axes.bar_label(bars, [f"{value:.0f}" for value in rows["images_per_s"]], padding=6)
    axes.set_xlabel(f"images/s, {AT} in flight; median, least and most of the rounds")
    axes.margins(x=0.1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def write_report(measurements: pd.DataFrame, folder: Path, conditions: Mapping[str, str]) -> str:
    """Write report.md and report.png; the Markdown."""
    table = medians(measurements)
    text = to_markdown(table, conditions)
    save(bar_figure(table), folder / "report.png", dict(conditions))
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def read_measurements(path: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table of a run and the conditions above it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    conditions = {name: value for name, _, value in (comment.partition(": ") for comment in comments)}
    return pd.read_csv(path, skiprows=len(comments)), conditions


def main(table: Path) -> None:
    measurements, conditions = read_measurements(table)
    print(write_report(measurements, table.parent, conditions))


if __name__ == "__main__":
    program.run(lambda: main(Path(sys.argv[1])), also=(IndexError, KeyError, ValueError))
