"""Whether a model serves everyone alike: its metrics by gender, race and age group, and how far apart they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.samples import labels_of
from contract.spec import AGE_GROUPS, GENDERS, Predictions, age_group_index
from evaluation.intervals import Interval, Values, cautious_interval, mean_interval, resampled_means, share_interval
from evaluation.metrics import HEADLINE, Metric

MIN_FACES = 30  # a subgroup with fewer is in the table, but no gap rests on it
RACE = "race"  # a column that some manifests have
# Columns of other manifests, of which a single value says nothing: how a picture is stored, how far its voters agree.
TELLING_IF_MIXED = ("format", "agreement")


@dataclass(frozen=True)
class Subgroup:
    """The headline metrics of the faces that share a value of an attribute. Accuracies are fractions."""

    attribute: str
    name: str
    faces: int
    scores: dict[Metric, Interval]


@dataclass(frozen=True)
class Gap:
    """The largest minus the smallest value of a metric among the subgroups with at least MIN_FACES faces.

    Every subgroup is resampled by itself. The gap of several equal subgroups is above 0 by chance alone; its interval
    (evaluation.intervals.cautious_interval) then reaches 0.
    """

    attribute: str
    metric: Metric
    best: str
    worst: str
    value: Interval


@dataclass(frozen=True)
class Subgroups:
    """All subgroups of one set of faces, and the gaps between them."""

    rows: tuple[Subgroup, ...]  # all faces first; none where no attribute is known
    gaps: tuple[Gap, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return a row a subgroup, metrics with their intervals as columns."""
        return pd.DataFrame(
            {"attribute": row.attribute, "name": row.name, "faces": row.faces}
            | {
                f"{metric.name}{end}": value
                for metric, score in row.scores.items()
                for end, value in score.ends.items()
            }
            for row in self.rows
        )

    def gaps_to_frame(self) -> pd.DataFrame:
        """Return a row an attribute and metric."""
        return pd.DataFrame(
            {"attribute": gap.attribute, "metric": gap.metric.name, "best": gap.best, "worst": gap.worst}
            | {f"gap{end}": value for end, value in gap.value.ends.items()}
            for gap in self.gaps
        )


def attributes_of(table: pd.DataFrame) -> dict[str, pd.Series[str]]:
    """Return each face's subgroup by attribute, NaN where unknown; an attribute that no face has is left out.

    Race by gender is there because an error may be hidden in either alone (Buolamwini and Gebru 2018).
    """
    labels = labels_of(table)
    gender = _named(GENDERS, np.nan_to_num(labels.gender).round().astype(int), np.isnan(labels.gender), table.index)
    group = age_group_index(np.nan_to_num(labels.age))
    found = {"gender": gender, "age group": _named(AGE_GROUPS, group, np.isnan(labels.age), table.index)}
    if RACE in table:
        found |= {"race": table[RACE], "race and gender": table[RACE] + ", " + gender}
    found |= {name: table[name] for name in TELLING_IF_MIXED if name in table and table[name].nunique() > 1}
    return {attribute: values for attribute, values in found.items() if values.notna().any()}


def compare_subgroups(predictions: Predictions, table: pd.DataFrame, rng: np.random.Generator) -> Subgroups:
    """Score every subgroup of the manifest's rows `table`, one a prediction, and compare them."""
    labels = labels_of(table)
    scored = {metric: metric.per_face(predictions, labels) for metric in HEADLINE}
    attributes = attributes_of(table)
    everyone = np.ones(len(table), bool)
    rows = [_subgroup("all", "all", everyone, scored)] if attributes else []
    gaps: list[Gap] = []
    for attribute, values in attributes.items():
        names = _in_order(values)
        members = {name: (values == name).to_numpy(bool) for name in names}
        rows += [_subgroup(attribute, name, chosen, scored) for name, chosen in members.items()]
        gaps += _gaps(attribute, members, scored, rng)
    return Subgroups(tuple(rows), tuple(gaps))


def _subgroup(attribute: str, name: str, chosen: NDArray[np.bool_], scored: dict[Metric, Values]) -> Subgroup:
    scores = {metric: _interval(metric, values[chosen & ~np.isnan(values)]) for metric, values in scored.items()}
    return Subgroup(attribute, name, int(chosen.sum()), scores)


def _interval(metric: Metric, values: Values) -> Interval:
    """Return the mean; of shares with Wilson's interval, as some subgroups are a few faces, all of them right."""
    return share_interval(int(values.sum()), len(values)) if metric.unit == "%" else mean_interval(values)


def _gaps(
    attribute: str, members: dict[str, NDArray[np.bool_]], scored: dict[Metric, Values], rng: np.random.Generator
) -> Iterator[Gap]:
    for metric, values in scored.items():
        known = {name: values[chosen & ~np.isnan(values)] for name, chosen in members.items()}
        large = {name: of_group for name, of_group in known.items() if len(of_group) >= MIN_FACES}
        if len(large) < 2:
            continue
        means = {name: float(of_group.mean()) for name, of_group in large.items()}
        resampled = np.stack([resampled_means(of_group, rng) for of_group in large.values()])
        noise = resampled - np.array(list(means.values()))[:, None]
        smallest, largest = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        best, worst = (smallest, largest) if metric.better == "lower" else (largest, smallest)
        gap = cautious_interval(means[largest] - means[smallest], np.ptp(resampled, axis=0), np.ptp(noise, axis=0))
        yield Gap(attribute, metric, best, worst, gap)


def _named(
    names: Sequence[str], index: NDArray[np.int64], missing: NDArray[np.bool_], rows: pd.Index[int]
) -> pd.Series[str]:
    return pd.Series(np.array(names)[index], rows, dtype="str").mask(missing)


def _in_order(values: pd.Series[str]) -> list[str]:
    """Return age groups by age, which is their alphabetical order too, and all else by name."""
    return sorted(values.dropna().unique())
