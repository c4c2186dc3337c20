"""The pictures of a load test: latencies, the course of the run, and where the time goes."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contract.files import replacing
from loadtest.users.measurement import Measurement

SLICES = 40  # of the run, in its course: enough for a shape, and each still holds requests


def latency_figure(measurement: Measurement, *, objective_ms: float) -> Figure:
    """Draw latency at every percentile, on an axis that gives the tail its room."""
    figure, axes = plt.subplots(figsize=(8, 4.5))
    answers = measurement.counted.query("error == ''")
    for name, latencies in answers.groupby("name")["latency_ms"]:
        beyond = 1 - (np.arange(len(latencies)) + 0.5) / len(latencies)
        axes.plot(1 / beyond, np.sort(latencies), label=name)
    axes.axhline(objective_ms, color="grey", linestyle="--", linewidth=1, label=f"objective {objective_ms:g} ms")
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 10, 20, 100, 1000], ["0", "50", "90", "95", "99", "99.9"])
    axes.set(xlabel="percentile of requests", ylabel="latency (ms), from when each was due", ylim=(0, None))
    axes.legend(frameon=False)
    return figure


def course_figure(measurement: Measurement, *, objective_ms: float) -> Figure:
    """Draw load, answers, errors, requests in flight and latency over the time of the run, the warm-up shaded."""
    requests, window = measurement.requests, measurement.window
    origin_s = requests["due_s"].min()
    due, end = requests["due_s"] - origin_s, requests["due_s"] - origin_s + requests["latency_ms"] / 1000
    valid = requests["error"] == ""
    edges = np.linspace(0, end.max(), SLICES + 1)
    width_s = edges[1]
    figure, (rates, flight, latency) = plt.subplots(3, 1, figsize=(8, 7.5), sharex=True)
    for label, times in (("due", due), ("valid answers", end[valid]), ("errors", end[~valid])):
        if len(times):
            rates.stairs(np.histogram(times, edges)[0] / width_s, edges, label=label, baseline=None)
    in_flight = [((due <= at) & (end > at)).sum() for at in edges]
    flight.plot(edges, in_flight)
    _latency_course(latency, end[valid], requests.loc[valid, "latency_ms"], edges)
    latency.axhline(objective_ms, color="grey", linestyle="--", linewidth=1)
    for axes in (rates, flight, latency):
        axes.axvspan(0, max(0.0, window.start_s - origin_s), color="grey", alpha=0.15, linewidth=0)
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legends
    rates.set_ylabel("requests/s")
    flight.set_ylabel("in flight")
    latency.set(ylabel="latency (ms)", xlabel="seconds; shaded: warm-up, not counted")
    rates.legend(frameon=False, ncols=3)
    latency.legend(frameon=False, ncols=2)
    return figure


def _latency_course(axes: Axes, end: pd.Series, latency_ms: pd.Series, edges: np.ndarray) -> None:
    slices = latency_ms.groupby(np.clip(np.digitize(end, edges) - 1, 0, SLICES - 1))
    for percentile in (50, 99):
        values = slices.quantile(percentile / 100)
        axes.plot((edges[values.index] + edges[values.index + 1]) / 2, values, label=f"p{percentile} of the answers")


def stages_figure(stages: pd.DataFrame) -> Figure:
    """Draw a bar a kind of request, as long as its mean latency, divided into `where_time_goes`."""
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.6 * len(stages)))
    parts = stages.drop(columns="client")
    left = np.zeros(len(parts))
    for part in parts:
        axes.barh(list(parts.index), parts[part], left=left, label=part)
        left += parts[part].to_numpy()
    axes.set_xlabel("mean latency (ms)")
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, ncols=3, loc="upper center")
    return figure


def save(figure: Figure, path: Path, conditions: dict[str, str]) -> None:
    """Write a PNG that says in its foot, and in full in its description, under which conditions it was measured."""
    short = "; ".join(conditions[name] for name in ("load", "model", "hardware") if name in conditions)
    figure.tight_layout(
        rect=(0, 0.3 / figure.get_figheight(), 1, 1 - (0.5 / figure.get_figheight() if figure.legends else 0))
    )
    figure.text(0.01, 0.005, textwrap.fill(short, 130), fontsize=6.5, color="dimgrey", va="bottom")
    everything = "\n".join(f"{name}: {value}" for name, value in conditions.items())
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Description": everything})
    plt.close(figure)
