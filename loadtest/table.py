"""Measurements as CSV below their conditions, a comment line each: written, read and continued in one way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from contract.files import replacing
from contract.program import UserError
from loadtest.generator.closed_loop import Load

IN_FLIGHT, ROUND = "in_flight", "round"
THROUGHPUT, P50, P99, ERRORS = "images_per_s", "p50_ms", "p99_ms", "errors"


class ConditionsError(UserError, ValueError):
    """Rows were measured under other conditions; the message says which, and what to do."""


def columns_of(load: Load) -> dict[str, float]:
    """Return the columns that a load gives a row."""
    return {
        THROUGHPUT: round(load.throughput, 2),
        P50: round(load.p50_ms, 3),
        P99: round(load.p99_ms, 3),
        ERRORS: sum(load.errors.values()),
    }


def write_table(table: pd.DataFrame, path: Path, conditions: Mapping[str, str]) -> None:
    """Write the table below its conditions in one step, so that a stop breaks nothing."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"# {name}: {value}\n" for name, value in conditions.items())
        table.to_csv(file, index=False)


def read_table(path: Path, *, text: Iterable[str] = ()) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a table and the conditions above it. Raises OSError, or ValueError for what is no table.

    text: columns that are text whatever stands in them, an empty field being the empty text.
    """
    with path.open(encoding="utf-8") as file:
        comments = itertools.takewhile(lambda line: line.startswith("# "), file)
        pairs = [line.removeprefix("# ").rstrip("\n").partition(": ") for line in comments]
    columns = list(text)
    table = pd.read_csv(path, skiprows=len(pairs), dtype=dict.fromkeys(columns, str))
    found = table.columns.intersection(columns)
    table[found] = table[found].fillna("")
    return table, {name: value for name, _, value in pairs}


def read_rows_to_continue(
    path: Path, conditions: Mapping[str, str], *, text: Iterable[str] = ()
) -> list[dict[str, object]]:
    """Read the rows that an earlier run wrote; none where there is no file.

    Raises ConditionsError where they were measured under other conditions: theirs cannot be compared with new ones.
    """
    if not path.exists():
        return []
    table, found = read_table(path, text=text)
    names = [name for name in {**found, **conditions} if found.get(name) != conditions.get(name)]
    if names:
        differences = [f"{n}: {found.get(n, 'none')} (there), {conditions.get(n, 'none')} (here)" for n in names]
        raise ConditionsError(
            f"{path} was measured under other conditions, whose rows cannot be compared; give another --out, or delete "
            "the file\n" + "\n".join(differences)
        )
    return records(table)


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows as mappings from column to value."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def medians(rows: pd.DataFrame, key: Iterable[str]) -> pd.DataFrame:
    """Return a row for each `key`: medians over the rounds, least and most throughput, sum of errors, rounds."""
    return (
        rows.groupby(list(key), sort=False)
        .agg(
            **{name: (name, "median") for name in (THROUGHPUT, P50, P99)},
            **{f"least_{THROUGHPUT}": (THROUGHPUT, "min"), f"most_{THROUGHPUT}": (THROUGHPUT, "max")},
            errors=(ERRORS, "sum"),
            rounds=(ROUND, "nunique"),
        )
        .reset_index()
    )


def listed(conditions: Mapping[str, str]) -> str:
    """Return the conditions as a Markdown list."""
    return "\n".join(f"* {name}: {value}" for name, value in conditions.items())
