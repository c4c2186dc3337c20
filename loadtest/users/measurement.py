"""One load test as data: every request, what the server counted, the conditions; and the numbers that follow from it.

A folder holds it: requests.csv, stages.csv and conditions.json. Percentiles are exact, of all requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from clients.status import ModelStatistics
from contract.files import replacing
from contract.spec import DECODE_MODEL_NAME, MODEL_NAME
from loadtest.table import read_table, write_table

PERCENTILES = (50, 90, 95, 99)
MODELS = {"tensor": (MODEL_NAME,), "encoded": (DECODE_MODEL_NAME, MODEL_NAME)}  # that a request of each kind passes


class Request(NamedTuple):
    """One request. Latency counts from when it should have left, so a late start (lag) is part of it."""

    name: str  # protocol and wire, such as "gRPC tensor"
    due_s: float  # Unix time
    lag_ms: float  # how long after that it did leave
    latency_ms: float
    error: str  # empty for a valid answer


@dataclass(frozen=True)
class Window:
    """What of a run counts, in Unix time: from the end of the warm-up until the load was told to stop."""

    start_s: float
    stop_s: float

    @property
    def length_s(self) -> float:
        return self.stop_s - self.start_s


@dataclass(frozen=True)
class Measurement:
    """All requests of a run, those of the warm-up included; stages are those of the window."""

    requests: pd.DataFrame  # columns: the fields of Request
    stages: pd.DataFrame  # a row a model
    window: Window
    conditions: dict[str, str]

    @classmethod
    def of(
        cls, requests: Iterable[Sequence[object]], stages: pd.DataFrame, window: Window, conditions: Mapping[str, str]
    ) -> Measurement:
        return cls(pd.DataFrame(requests, columns=list(Request._fields)), stages, window, dict(conditions))

    @property
    def counted(self) -> pd.DataFrame:
        """Return the requests that were due within the window, whenever answered: none is too slow to count."""
        due = self.requests["due_s"]
        return self.requests[(due >= self.window.start_s) & (due < self.window.stop_s)]

    def answered(self) -> pd.DataFrame:
        """Return the valid answers that arrived within the window: what throughput counts."""
        arrived = self.requests["due_s"] + self.requests["latency_ms"] / 1000
        within = (arrived >= self.window.start_s) & (arrived < self.window.stop_s)
        return self.requests[within & (self.requests["error"] == "")]

    def write(self, folder: Path) -> None:
        write_table(self.requests, folder / "requests.csv", self.conditions)
        write_table(self.stages, folder / "stages.csv", self.conditions)
        text = {"conditions": self.conditions, "window": {"start_s": self.window.start_s, "stop_s": self.window.stop_s}}
        with replacing(folder / "conditions.json") as temporary:
            temporary.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Measurement:
        """Read a folder. Raises OSError where it lacks a file, ValueError or KeyError where it holds no measurement."""
        text = json.loads((folder / "conditions.json").read_text(encoding="utf-8"))
        requests, _ = read_table(folder / "requests.csv", text=("error",))
        stages, _ = read_table(folder / "stages.csv")
        return cls(requests, stages, Window(**text["window"]), text["conditions"])


def summary(measurement: Measurement, *, objective_ms: float) -> pd.DataFrame:
    """Return a row for each kind of request and, of several, one for all; latencies are of valid answers."""
    counted, answered = measurement.counted, measurement.answered()
    names = sorted(counted["name"].unique())
    parts = [(name, counted[counted["name"] == name], answered[answered["name"] == name]) for name in names]
    if len(names) != 1:
        parts.append(("all", counted, answered))
    return pd.DataFrame([_row(*part, measurement.window.length_s, objective_ms) for part in parts])


def _row(
    name: str, counted: pd.DataFrame, answered: pd.DataFrame, length_s: float, objective_ms: float
) -> dict[str, object]:
    valid = counted.loc[counted["error"] == "", "latency_ms"]
    lag_p99_ms = np.percentile(counted["lag_ms"], 99) if len(counted) else np.nan
    latencies = np.percentile(valid, PERCENTILES) if len(valid) else [np.nan] * len(PERCENTILES)
    return {
        "requests": name,
        "count": len(counted),
        "errors": len(counted) - len(valid),
        **{f"p{p}_ms": value for p, value in zip(PERCENTILES, latencies, strict=True)},
        "max_ms": valid.max(),
        "mean_ms": valid.mean(),
        "images_per_s": len(answered) / length_s,
        "goodput_per_s": (answered["latency_ms"] <= objective_ms).sum() / length_s,
        "objective_ms": objective_ms,
        "lag_p99_ms": lag_p99_ms,
    }


def stages_between(before: Iterable[ModelStatistics], after: Iterable[ModelStatistics]) -> pd.DataFrame:
    """Return what each model did between two looks at the server's statistics, from their running totals."""
    earlier = {(model.name, model.version): model for model in before}
    stages = [_stage(earlier.get((model.name, model.version)), model) for model in after]
    rows = [stage for stage in stages if stage["images"] or stage["failures"]]
    return pd.DataFrame(rows, columns=["model", "images", "failures", "average_batch", "queue_ms", "compute_ms"])


def _stage(before: ModelStatistics | None, after: ModelStatistics) -> dict[str, object]:
    before = before or ModelStatistics(after.name, after.version, 0, 0, 0, 1.0, 0.0, 0.0)  # loaded in between
    requests = max(after.requests - before.requests, 1)
    executions = after.images / after.average_batch - before.images / before.average_batch if after.images else 0
    return {
        "model": after.name,
        "images": after.images - before.images,
        "failures": after.failures - before.failures,
        "average_batch": (after.images - before.images) / max(executions, 1),
        "queue_ms": (after.queue_ms * after.requests - before.queue_ms * before.requests) / requests,
        "compute_ms": (after.compute_ms * after.requests - before.compute_ms * before.requests) / requests,
    }


def where_time_goes(measurement: Measurement, table: pd.DataFrame) -> pd.DataFrame:
    """Return mean milliseconds of each kind of request: queue and compute of each model it passes, and the rest.

    A row a kind, a column a stage. The rest is the network, both transports, the client, and in an open loop lag. The
    server's means are of all requests that a model had, so kinds that were run together share them.
    """
    models = measurement.stages.set_index("model")
    rows = {}
    for name, mean_ms in zip(table["requests"], table["mean_ms"], strict=True):
        if name == "all":
            continue
        passed = [model for model in MODELS[name.split()[-1]] if model in models.index]
        stages = {f"{m}: {part}": float(models[f"{part}_ms"][m]) for m in passed for part in ("queue", "compute")}
        rows[name] = {**stages, "rest": max(0.0, mean_ms - sum(stages.values())), "client": mean_ms}
    return pd.DataFrame.from_dict(rows, orient="index").fillna(0.0)


def errors(measurement: Measurement) -> pd.DataFrame:
    """Return each error that was seen, the most frequent first."""
    failed = measurement.counted.query("error != ''")
    return failed.groupby(["name", "error"]).size().sort_values(ascending=False).rename("count").reset_index()
