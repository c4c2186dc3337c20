"""What follows from a sweep's rows: the Pareto front, the choice, and the lines of a configuration that make it so."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from loadtest.sweep.config import INSTANCES, QUEUE_DELAY, line_of
from loadtest.sweep.rows import MODEL, SweepError
from loadtest.table import ERRORS, IN_FLIGHT, P99, ROUND, THROUGHPUT, medians

LINE_LENGTH = 120  # of the configurations
UNITS = {IN_FLIGHT: "{} in flight", QUEUE_DELAY: "queue delay {} us", INSTANCES: "instances {}", MODEL: "{}"}

# Without a limit: up to the knee more load buys throughput, beyond it only latency. What is within 5 % of the most
# counts as the most, since two rounds of the same settings on a shared machine differ by as much.
KNEE = 0.95


def swept(rows: pd.DataFrame, key: Iterable[str]) -> pd.DataFrame:
    """Return the medians of each point of the grid over the rounds, and whether it is on the Pareto front."""
    table = medians(rows, [name for name in key if name != ROUND]).round(3)
    return table.assign(pareto=pareto_front(table))


def pareto_front(table: pd.DataFrame) -> pd.Series:
    """Return which rows no other beats in throughput and in p99 at once; those with errors never are on it."""
    valid = table[(table[ERRORS] == 0) & table[[THROUGHPUT, P99]].notna().all(axis=1)]
    by_latency = valid.sort_values([P99, THROUGHPUT], ascending=[True, False])[THROUGHPUT]
    most_before = by_latency.cummax().shift(fill_value=-np.inf)
    return pd.Series(table.index.isin(by_latency.index[by_latency > most_before]), index=table.index)


@dataclass(frozen=True)
class Choice:
    """The row that was chosen of the medians, its index there, and by what rule."""

    row: pd.Series
    index: int
    rule: str


def choose(table: pd.DataFrame, *, p99_limit_ms: float | None = None, in_flight: int | None = None) -> Choice:
    """Choose the most throughput with p99 within the limit; without one the knee. `in_flight` narrows it to one load.

    Raises SweepError where no row is free of errors and within the limit.
    """
    at = "" if in_flight is None else f" at {in_flight} in flight"
    rows = table[(table[ERRORS] == 0) & ((table[IN_FLIGHT] == in_flight) | (in_flight is None))]
    if rows.empty:
        raise SweepError(f"there is no row without errors{at} to choose")
    if p99_limit_ms is None:
        enough = rows[rows[THROUGHPUT] >= KNEE * rows[THROUGHPUT].max()]
        rule = f"the least p99 with at least {KNEE:.0%} of the most throughput{at}"
        return _chosen(enough, int(enough[P99].to_numpy().argmin()), rule)
    within = rows[rows[P99] <= p99_limit_ms]
    if within.empty:
        least_ms = rows[P99].min()
        raise SweepError(
            f"no row without errors{at} has a p99 within {p99_limit_ms:g} ms; the least is {least_ms:.1f} ms"
        )
    rule = f"the most throughput with p99 within {p99_limit_ms:g} ms{at}"
    return _chosen(within, int(within[THROUGHPUT].to_numpy().argmax()), rule)


def _chosen(rows: pd.DataFrame, position: int, rule: str) -> Choice:
    return Choice(rows.iloc[position], int(rows.index.to_numpy()[position]), rule)


def alternatives(table: pd.DataFrame, chosen: pd.Series, setting: str, settings: Iterable[str]) -> pd.DataFrame:
    """Return the rows that differ from the chosen one in this setting alone, and the chosen one first."""
    others = [name for name in (MODEL, *settings, IN_FLIGHT) if name != setting]
    same = (table[others] == chosen[others]).all(axis=1)
    return table[same].sort_values(setting, key=lambda values: values != chosen[setting], kind="stable")


def varied(table: pd.DataFrame, settings: Iterable[str]) -> list[str]:
    """Return the columns by which rows differ: naming the others would say nothing."""
    return [name for name in (MODEL, IN_FLIGHT, *settings) if table[name].nunique() > 1]


def describe(row: pd.Series, names: Iterable[str]) -> str:
    """Say a row's model, load and settings in words."""
    return ", ".join(UNITS.get(name, f"{name} {{}}").format(row[name]) for name in names)


def results(row: pd.Series) -> str:
    return f"{row[THROUGHPUT]:.4g} images/s, p99 {row[P99]:.3g} ms"


def lines_to_paste(
    table: pd.DataFrame, choice: Choice, settings: Sequence[str], present: Mapping[str, str], *, hardware: str
) -> list[str]:
    """Return the lines of a config.pbtxt that the choice changes, each below what its alternatives gave.

    present: the settings that the configuration has, by name.
    """
    lines = []
    for name in settings:
        if (value := str(choice.row[name])) != present[name]:
            note = _note(table, choice, name, settings, hardware)
            lines += textwrap.wrap(note, LINE_LENGTH, initial_indent="# ", subsequent_indent="# ")
            lines.append(line_of(name, value))
    return lines


def _note(table: pd.DataFrame, choice: Choice, setting: str, settings: Sequence[str], hardware: str) -> str:
    rows = alternatives(table, choice.row, setting, settings)
    measured = "; ".join(f"{describe(row, [setting])}: {results(row)}" for _, row in rows.iterrows())
    names = [MODEL, IN_FLIGHT, *(name for name in varied(table, settings) if name in settings and name != setting)]
    context = f"At {describe(choice.row, names)}; medians of {choice.row['rounds']} rounds on {hardware}"
    return f"Sweep of {datetime.now(UTC):%Y-%m-%d}: {measured}. {context}; chosen for {choice.rule}."
