"""The rows of a sweep, kept on disk as they are made, so that a sweep can go on after any stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from contract.program import UserError
from loadtest.table import ERRORS, IN_FLIGHT, P50, P99, ROUND, THROUGHPUT, read_rows_to_continue, write_table

MODEL, SHA256 = "model", "model_sha256"
MEASURED = (THROUGHPUT, P50, P99, ERRORS, "measured_at")


class SweepError(UserError, ValueError):
    """The sweep cannot go on, or choose; the message says what to change."""


class Rows:
    """A row for each measurement, on disk as soon as it is made; `path` is replaced whole, so a stop breaks nothing."""

    def __init__(self, path: Path, conditions: Mapping[str, str], settings: Sequence[str]) -> None:
        """Those that `path` has already. Raises ConditionsError where they were measured under other conditions."""
        self.path, self.conditions = path, dict(conditions)
        self.settings = tuple(settings)  # columns between the model and the load
        self.key = (MODEL, *self.settings, IN_FLIGHT, ROUND)
        self._rows = read_rows_to_continue(path, conditions, text=settings)
        if self._rows and list(self._rows[0]) != list(self.table.columns):
            raise SweepError(f"{path} has other columns than this sweep; give it another --out, or delete the file")
        self._done = {self._key_of(row) for row in self._rows}

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows, columns=[*self.key, *MEASURED, SHA256])

    def __contains__(self, row: Mapping[str, object]) -> bool:
        return self._key_of(row) in self._done

    def add(self, row: Mapping[str, object]) -> None:
        """Keep the row and write all of them."""
        self._rows.append(dict(row))
        self._done.add(self._key_of(row))
        write_table(self.table, self.path, self.conditions)

    def check_model(self, name: str, sha256: str) -> None:
        """Raise SweepError where the rows of this name are those of another file."""
        for row in self._rows:
            if row[MODEL] == name and row[SHA256] != sha256:
                raise SweepError(
                    f"{self.path} has rows of another model called {name} (SHA-256 {str(row[SHA256])[:12]} there, "
                    f"{sha256[:12]} here); give this one another name, or the sweep another --out"
                )

    def _key_of(self, row: Mapping[str, object]) -> tuple[str, ...]:
        return tuple(str(row[column]) for column in self.key)
