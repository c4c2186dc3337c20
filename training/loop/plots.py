"""Draws the history of a run, as the published report shows it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluation.plots import SELECTION_COLOUR, save_figure
from training.loop.history import best_epoch, read_history

TRAIN_COLOUR = "#7a8aa0"


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
