"""The pictures of the published report: the history of a run and the metrics by age group."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from contract.files import replacing
from contract.intervals import Interval
from contract.metrics import Report
from training.history import best_epoch, read_history

matplotlib.use("Agg")  # pictures go to files, also where there is no screen

TRAIN_COLOUR, SELECTION_COLOUR = "#7a8aa0", "#c8452c"
GROUP_COLOUR = "#3b6ea5"


def plot_history(run: Path, suffix: str) -> Path:
    """Draw training_history_<suffix>.png of a run's history.csv and return its path."""
    history = read_history(run)
    figure = Figure(figsize=(15, 8), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    _pair(axes[0], history, "loss", "total loss")
    _pair(axes[1], history, "age_mae_years", "age MAE (years)")
    _pair(axes[2], history, "gender_accuracy", "gender accuracy (%)", scale=100)
    _pair(axes[3], history, "emotion_accuracy", "emotion accuracy (%)", scale=100)
    _task_losses(axes[4], history)
    axes[5].step(history["epoch"], history["learning_rate"], where="mid", color="#444444")
    axes[5].set(title="learning rate", yscale="log")
    for ax in axes:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    best = best_epoch(history)
    figure.suptitle(f"best epoch {best['epoch']:.0f}: selection loss {best['selection_loss']:.3f}")
    return save_figure(figure, run / f"training_history_{suffix}.png")


def plot_age_groups(report: Report, out: Path, *, title: str) -> Path | None:
    """Draw the metrics by age group with their 95 % intervals, and the number of faces; None for faces without ages."""
    if not report.groups:
        return None
    metrics = (
        ("age MAE (years)", attrgetter("age_mae_years"), 1),
        ("gender accuracy (%)", attrgetter("gender_accuracy"), 100),
        ("emotion accuracy (%)", attrgetter("emotion_accuracy"), 100),
    )
    known = [(name, metric, scale) for name, metric, scale in metrics if metric(report.overall).known]
    rows = (len(known) + 2) // 2  # and one for the number of faces
    figure = Figure(figsize=(13, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, 2).flatten()
    for ax, (name, metric, scale) in zip(axes, known, strict=False):
        _bars(ax, [(m.group, metric(m)) for m in report.groups if metric(m).known], scale)
        overall = scale * metric(report.overall).value
        ax.axhline(overall, color=SELECTION_COLOUR, linestyle="--")
        ax.set_title(f"{name}; all faces {overall:.2f} (dashed)")
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


def _pair(ax: Axes, history: pd.DataFrame, name: str, title: str, scale: float = 1) -> None:
    for part, colour in (("train", TRAIN_COLOUR), ("selection", SELECTION_COLOUR)):
        ax.plot(history["epoch"], scale * history[f"{part}_{name}"], color=colour, marker=".", label=part)
    ax.set_title(title)
    ax.legend()


def _task_losses(ax: Axes, history: pd.DataFrame) -> None:
    for name, colour in (("gender_loss", "#7b4fa3"), ("emotion_loss", "#2f8f5b")):
        label = name.replace("_", " ")
        ax.plot(history["epoch"], history[f"train_{name}"], color=colour, linestyle=":", label=f"{label}, train")
        ax.plot(history["epoch"], history[f"selection_{name}"], color=colour, marker=".", label=f"{label}, selection")
    ax.set_title("task losses (age: its MAE)")
    ax.legend()


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
