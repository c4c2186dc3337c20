"""Evaluations of several stages side by side, and whether they agree.

    python -m evaluation.comparison --evaluations checkpoint checkpoint.csv gRPC grpc.csv --out report.md

Reads what Report.write_csv wrote; exits with status 1 where two stages differ by more than the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from contract import program
from contract.files import replacing
from evaluation.metrics import HEADLINE, METRICS
from evaluation.text import markdown_table


@dataclass(frozen=True)
class ComparisonConfig:
    """Print the age-group tables of several evaluations of the same faces side by side."""

    evaluations: dict[str, Path]  # title and CSV of each, the reference first
    out: Path | None = None  # also write it as Markdown
    title: str = "Evaluations side by side"
    pictures: tuple[Path, ...] = ()  # shown in the Markdown, relative to it
    age_tolerance_years: float = 0.01  # of the mean absolute error, in every age group
    accuracy_tolerance: float = 0.00005  # half of the last digit printed, in every age group


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return Markdown: a row an age group, a column an evaluation, each cell age MAE / gender % / emotion %."""
    first = next(iter(tables.values()))
    rows = [
        [group, f"{samples:,}", *(_cell(table.iloc[row]) for table in tables.values())]
        for row, (group, samples) in enumerate(zip(first["group"], first["samples"], strict=True))
    ]
    return markdown_table(["age group", "faces", *tables], rows)


def differences(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how far each evaluation is from the first, at most over all age groups: a row each, a column a metric.

    A file of an earlier version may lack a metric that is in no table; it is then left out. Raises ValueError where
    the evaluations are not of the same faces.
    """
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if not table[["group", "samples"]].equals(first[["group", "samples"]]):
            raise ValueError(
                f"evaluation {name!r} is of other faces than the first; evaluate the same manifest and role"
            )
    metrics = [m.name for m in METRICS.values() if m.headline or all(m.name in table for table in tables.values())]
    return pd.DataFrame({name: _apart(table[metrics], first[metrics]) for name, table in tables.items()}).T


def _apart(table: pd.DataFrame, first: pd.DataFrame) -> pd.Series[float]:
    """Return each metric's largest difference: none where both lack a label, infinite where one of them does."""
    apart = (table - first).abs().mask(table.isna() & first.isna(), 0.0)
    return apart.fillna(np.inf).max()


def _cell(row: pd.Series) -> str:
    values = (metric.scale * row[metric.name] for metric in HEADLINE)
    return " / ".join("-" if pd.isna(value) else f"{value:.2f}" for value in values)


def main(config: ComparisonConfig) -> int:
    tables = {name: pd.read_csv(path) for name, path in config.evaluations.items()}
    largest = differences(tables).max()
    years, accuracy = (
        float(largest[[name for name in largest.index if METRICS[name].unit == unit]].max()) for unit in ("years", "%")
    )
    agree = years <= config.age_tolerance_years and accuracy <= config.accuracy_tolerance
    verdict = (
        f"{'They agree' if agree else 'THEY DISAGREE'}: over all age groups at most {years:.1e} years of age MAE and "
        f"{100 * accuracy:.2g} points of accuracy apart (tolerance {config.age_tolerance_years:g} years, "
        f"{100 * config.accuracy_tolerance:g} points)."
    )
    text = f"age MAE (years) / gender accuracy (%) / emotion accuracy (%)\n\n{side_by_side(tables)}\n\n{verdict}"
    print(text)
    if config.out:
        pictures = "".join(f"\n\n![{path.stem}]({path})" for path in config.pictures)
        with replacing(config.out) as temporary:
            temporary.write_text(f"# {config.title}\n\n{text}{pictures}\n", encoding="utf-8")
        print(f"wrote {config.out}")
    return 0 if agree else 1


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ComparisonConfig)), also=(KeyError, ValueError))
