"""The pictures of a diagnosis: reliability diagram, error by age, confusion matrices, subgroups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from contract.samples import Labels
from contract.spec import Float32, Predictions
from evaluation.diagnosis.age_error import BIN_YEARS, AgeError
from evaluation.diagnosis.calibration import BINS, Calibration
from evaluation.diagnosis.confusion import Confusion
from evaluation.diagnosis.subgroups import MIN_FACES, Subgroup, Subgroups
from evaluation.intervals import Interval
from evaluation.metrics import HEADLINE, Metric
from evaluation.plots import save_figure

matplotlib.use("Agg")  # pictures go to files, also where there is no screen

# Blue and vermilion differ for every kind of colour vision (Okabe and Ito 2008).
COLOUR, CONTRAST, FAINT = "#0072b2", "#d55e00", "#8a8a8a"
WIDTH_INCHES = 10  # 1,100 pixels, which a README shows at three quarters
MIN_BIN_FACES = 5  # the mean of fewer tells of those faces, not of their age; the CSV has all bins


def plot_calibration(calibrations: Sequence[Calibration], out: Path) -> Path:
    """Draw reliability diagrams side by side: accuracy by confidence above, how the confidence is spread below."""
    figure = Figure(figsize=(WIDTH_INCHES * (len(calibrations) + 0.3) / 2.3, 6), layout="constrained")
    axes = figure.subplots(2, len(calibrations), height_ratios=(4, 1), squeeze=False, sharex="col")
    for (above, below), calibration in zip(axes.T, calibrations, strict=True):
        _reliability(above, calibration)
        _spread(below, calibration)
    _legend_below(figure, axes[0])
    return save_figure(figure, out)


def _legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """Draw one legend for all panels, where it hides no point."""
    found = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    columns = 3 if figure.get_figwidth() > 0.8 * WIDTH_INCHES else 1
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, frameon=False)


def _reliability(ax: Axes, calibration: Calibration) -> None:
    lowest = 0.5 if calibration.head == "gender" else 0.0
    ax.plot([lowest, 1], [lowest, 1], color=FAINT, linestyle="--", label="as right as it is confident")
    for bins, face, label in (
        ([b for b in calibration.bins if b.faces >= MIN_FACES], COLOUR, "accuracy, 95 % interval"),
        ([b for b in calibration.bins if b.faces < MIN_FACES], "white", f"of fewer than {MIN_FACES} answers"),
    ):
        if bins:
            _points(ax, [b.confidence for b in bins], [b.accuracy for b in bins], face=face, label=label)
    bottom = min(lowest, *(b.accuracy.low for b in calibration.bins))
    ax.set(ylim=(bottom - 0.02, 1.02), xlim=(lowest - 0.01, 1.01), ylabel="accuracy")
    ax.set_title(f"{calibration.head}: ECE {calibration.ece.text(scale=100)} points", fontsize=11)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(alpha=0.3)


def _points(ax: Axes, x: Sequence[float], y: Sequence[Interval], *, face: str, label: str) -> None:
    ax.errorbar(
        x,
        [i.value for i in y],
        yerr=_whiskers(y),
        fmt="o",
        color=COLOUR,
        markerfacecolor=face,
        markersize=6,
        capsize=3,
        label=label,
    )


def _whiskers(intervals: Sequence[Interval], scale: float = 1) -> list[list[float]]:
    return [[scale * (i.value - i.low) for i in intervals], [scale * (i.high - i.value) for i in intervals]]


def _spread(ax: Axes, calibration: Calibration) -> None:
    shares = [b.faces / calibration.faces for b in calibration.bins]
    ax.bar([b.low for b in calibration.bins], shares, 1 / BINS, align="edge", color=COLOUR, edgecolor="white")
    ax.set(ylabel="answers", xlabel=f"confidence ({calibration.faces:,} answers)", ylim=(0, None))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)


def plot_age_error(error: AgeError, predictions: Predictions, labels: Labels, out: Path) -> Path:
    """Draw answered against labelled age, and the errors by 5-year bins with their intervals."""
    figure = Figure(figsize=(WIDTH_INCHES, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    known = ~np.isnan(labels.age)
    _answers_by_age(left, labels.age[known], predictions.age[known])
    _errors_by_age(right, error)
    right.set_xlim(left.get_xlim())
    _legend_below(figure, (left, right))
    figure.suptitle(
        f"{error.faces:,} faces: MAE {error.mae_years.text()} years, mean error {error.bias_years.text()}", fontsize=11
    )
    return save_figure(figure, out)


def _answers_by_age(ax: Axes, labelled: Float32, answered: Float32) -> None:
    end = max(float(labelled.max()), float(answered.max())) * 1.03 + 1
    if len(labelled) > 1000:  # points would hide one another
        cells = ax.hexbin(labelled, answered, gridsize=45, bins="log", cmap="Blues", mincnt=1, extent=(0, end, 0, end))
        ax.figure.colorbar(cells, ax=ax, label="faces", fraction=0.045, format="%d")
    else:
        ax.scatter(labelled, answered, s=12, color=COLOUR, alpha=0.5, linewidths=0)
    ax.plot([0, end], [0, end], color=CONTRAST, linestyle="--", label="exact answer")
    ax.set(xlabel="labelled age (years)", ylabel="answered age (years)", xlim=(0, end), ylim=(0, end), aspect="equal")


def _errors_by_age(ax: Axes, error: AgeError) -> None:
    bins = [b for b in error.bins if b.faces >= MIN_BIN_FACES]
    ages = [b.labelled for b in bins]
    for intervals, colour, marker, label in (
        ([b.mae_years for b in bins], COLOUR, "o", "mean absolute error"),
        ([b.bias_years for b in bins], CONTRAST, "s", "mean error, above 0: taken for older"),
    ):
        ax.errorbar(
            ages, [i.value for i in intervals], yerr=_whiskers(intervals), color=colour, marker=marker, markersize=4,
            linewidth=1.2, capsize=2, label=label,
        )  # fmt: skip
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(
        xlabel=f"labelled age (years), bins of {BIN_YEARS} with {MIN_BIN_FACES} or more faces", ylabel="error (years)"
    )
    ax.xaxis.set_major_locator(MultipleLocator(20))
    ax.grid(alpha=0.3)


def plot_confusion(confusions: Sequence[Confusion], out: Path) -> Path:
    """Draw matrices with a row a labelled class: the share of its faces that got each answer, and their number."""
    widths = [len(c.answered) + 2 for c in confusions]
    rows = max(len(c.labelled) for c in confusions)
    size = (WIDTH_INCHES * max(5, *widths, sum(widths)) / 14, 2.2 + 0.55 * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(confusions), width_ratios=widths, squeeze=False)[0]
    for ax, confusion in zip(axes, confusions, strict=True):
        _matrix(ax, confusion)
    return save_figure(figure, out)


def _matrix(ax: Axes, confusion: Confusion) -> None:
    shares = confusion.counts / confusion.counts.sum(1, keepdims=True)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        text = f"{share:.0%}\n{confusion.counts[i, j]:,}"
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "black")
    ax.set_xticks(range(len(confusion.answered)), confusion.answered, rotation=35, ha="right")
    counts = zip(confusion.labelled, confusion.counts.sum(1), strict=True)
    ax.set_yticks(range(len(confusion.labelled)), [f"{name}\n{count:,}" for name, count in counts])
    ax.set(xlabel="answered", ylabel="labelled, number of faces")
    balanced = confusion.balanced_accuracy.text(scale=100, digits=1)
    ax.set_title(f"{confusion.head}: balanced accuracy\n{balanced} %", fontsize=11)


def plot_subgroups(subgroups: Subgroups, out: Path) -> Path:
    """Draw a row a subgroup, a panel a metric: points with 95 % intervals, hollow for fewer than MIN_FACES faces."""
    known = [metric for metric in HEADLINE if any(row.scores[metric].known for row in subgroups.rows)]
    positions = _positions(subgroups.rows)
    figure = Figure(figsize=(WIDTH_INCHES, 1.2 + 0.27 * max(positions)), layout="constrained")
    axes = figure.subplots(1, len(known), sharey=True, squeeze=False)[0]
    for ax, metric in zip(axes, known, strict=True):
        _forest(ax, subgroups.rows, positions, metric)
    axes[0].set_yticks(positions, [f"{row.name}  ({row.faces:,})" for row in subgroups.rows])
    axes[0].set_ylim(max(positions) + 0.7, min(positions) - 0.7)
    few = any(row.faces < MIN_FACES for row in subgroups.rows)
    hollow = f"; hollow: fewer than {MIN_FACES} faces" if few else ""
    figure.supxlabel(f"95 % intervals; number of faces in brackets; dashed: all faces{hollow}", fontsize=10)
    return save_figure(figure, out)


def _positions(rows: Iterable[Subgroup]) -> list[float]:
    """Return where each row stands, from the top, with a space between attributes."""
    found: list[float] = []
    before = None
    for row in rows:
        found.append((found[-1] if found else 0.0) + (1.0 if row.attribute in (before, None) else 1.8))
        before = row.attribute
    return found


def _forest(ax: Axes, rows: Sequence[Subgroup], positions: Sequence[float], metric: Metric) -> None:
    scale = metric.scale
    ax.axvline(scale * rows[0].scores[metric].value, color=FAINT, linestyle="--", linewidth=1)
    for row, position in zip(rows, positions, strict=True):
        interval = row.scores[metric]
        if not interval.known:
            continue
        enough = row.faces >= MIN_FACES
        ax.errorbar(
            scale * interval.value, position, xerr=_whiskers([interval], scale), fmt="o", markersize=5, capsize=2,
            color=COLOUR if enough else FAINT, markerfacecolor=COLOUR if enough else "white",
        )  # fmt: skip
    ax.set_title(metric.title, fontsize=11)
    ax.grid(axis="x", alpha=0.3)
    ax.tick_params(axis="y", length=0)
