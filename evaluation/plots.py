"""Draws the metrics by age group, as the published report shows them; every picture of the project is saved here."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contract.files import replacing
from evaluation.intervals import Interval
from evaluation.metrics import HEADLINE, Report

matplotlib.use("Agg")  # pictures go to files, also where there is no screen

SELECTION_COLOUR, GROUP_COLOUR = "#c8452c", "#3b6ea5"


def plot_age_groups(report: Report, out: Path, *, title: str) -> Path | None:
    """Draw the metrics by age group with their 95 % intervals, and the number of faces; None for faces without ages."""
    if not report.groups:
        return None
    known = [metric for metric in HEADLINE if report.overall.score(metric).known]
    rows = (len(known) + 2) // 2  # and one for the number of faces
    figure = Figure(figsize=(13, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, 2).flatten()
    for ax, metric in zip(axes, known, strict=False):
        _bars(ax, [(m.group, m.score(metric)) for m in report.groups if m.score(metric).known], metric.scale)
        overall = metric.scale * report.overall.score(metric).value
        ax.axhline(overall, color=SELECTION_COLOUR, linestyle="--")
        ax.set_title(f"{metric.title}; all faces {overall:.2f} (dashed)")
    counts = axes[len(known)]
    bars = counts.bar([m.group for m in report.groups], [m.samples for m in report.groups], color=GROUP_COLOUR)
    counts.bar_label(bars, fmt="{:,.0f}")
    counts.set_title("faces")
    for ax in axes[len(known) + 1 :]:
        ax.remove()
    for ax in axes[: len(known) + 1]:
        ax.set_xlabel("age group (years)")
        ax.grid(axis="y", alpha=0.3)
        ax.set_axisbelow(True)
    figure.suptitle(title)
    return save_figure(figure, out)


def _bars(ax: Axes, groups: list[tuple[str, Interval]], scale: float) -> None:
    heights = [scale * v.value for _, v in groups]
    errors = [[scale * (v.value - v.low) for _, v in groups], [scale * (v.high - v.value) for _, v in groups]]
    labels = [f"{name}\n{height:.2f}" for (name, _), height in zip(groups, heights, strict=True)]
    ax.bar(labels, heights, yerr=errors, color=GROUP_COLOUR, ecolor="#333333", capsize=4)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure in one step, the format as the suffix says."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
