"""The rows of a sweep: kept as CSV below their conditions, so that a sweep can go on after any stop."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from contract.program import UserError
from loadtest.users.measurement import write_csv

MODEL, SHA256, IN_FLIGHT, ROUND = "model", "model_sha256", "in_flight", "round"
THROUGHPUT, P50, P99, ERRORS = "images_per_s", "p50_ms", "p99_ms", "errors"
MEASURED = (THROUGHPUT, P50, P99, ERRORS, "measured_at")


class SweepError(UserError, ValueError):
    """The sweep cannot go on, or choose; the message says what to change."""


class Rows:
    """A row for each measurement, on disk as soon as it is made; `path` is replaced whole, so a stop breaks nothing."""

    def __init__(self, path: Path, conditions: Mapping[str, str], settings: Sequence[str]) -> None:
        """Those that `path` has already. Raises SweepError where they were measured under other conditions."""
        self.path, self.conditions = path, dict(conditions)
        self.settings = tuple(settings)  # columns between the model and the load
        self.key = (MODEL, *self.settings, IN_FLIGHT, ROUND)
        self._rows: list[dict[str, object]] = []
        if path.exists():
            self._rows = records(self._read())
        self._done = {self._key_of(row) for row in self._rows}

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows, columns=[*self.key, *MEASURED, SHA256])

    def __contains__(self, row: Mapping[str, object]) -> bool:
        return self._key_of(row) in self._done

    def add(self, row: Mapping[str, object]) -> None:
        self._rows.append(dict(row))
        self._done.add(self._key_of(row))
        write_csv(self.table, self.path, self.conditions)

    def check_model(self, name: str, sha256: str) -> None:
        """Raises SweepError where the rows of this name are those of another file."""
        for row in self._rows:
            if row[MODEL] == name and row[SHA256] != sha256:
                raise SweepError(
                    f"{self.path} has rows of another model called {name} (SHA-256 {str(row[SHA256])[:12]} there, "
                    f"{sha256[:12]} here); give this one another name, or the sweep another --out"
                )

    def _key_of(self, row: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(str(row[column]) for column in self.key)

    def _read(self) -> pd.DataFrame:
        found = read_conditions(self.path)
        if found != self.conditions:
            names = [n for n in {**found, **self.conditions} if found.get(n) != self.conditions.get(n)]
            differences = [
                f"{n}: {found.get(n, 'none')} (there), {self.conditions.get(n, 'none')} (here)" for n in names
            ]
            raise SweepError(
                f"{self.path} was measured under other conditions, whose rows cannot be compared; give this sweep "
                "another --out, or delete the file\n" + "\n".join(differences)
            )
        table = pd.read_csv(self.path, skiprows=len(found), dtype=dict.fromkeys(self.settings, str))
        if list(table.columns) != [*self.key, *MEASURED, SHA256]:
            raise SweepError(
                f"{self.path} has other columns than this sweep; give it another --out, or delete the file"
            )
        return table


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows as mappings from column to value."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def read_conditions(path: Path) -> dict[str, str]:
    """The comment lines above a table."""
    with path.open(encoding="utf-8") as file:
        lines = itertools.takewhile(lambda line: line.startswith("# "), file)
        pairs = (line.removeprefix("# ").rstrip("\n").partition(": ") for line in lines)
        return {name: value for name, _, value in pairs}
