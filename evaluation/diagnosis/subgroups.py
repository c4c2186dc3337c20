"""Whether a model serves everyone alike: its metrics by gender, race and age group, and how far apart they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.samples import Labels, labels_of
from contract.spec import AGE_GROUPS, GENDERS, Predictions, age_group_index
from evaluation.intervals import Interval, Values, cautious_interval, mean_interval, resampled_means, share_interval
from evaluation.metrics import PerFace

MIN_FACES = 30  # a subgroup with fewer is in the table, but no gap rests on it
METRICS = ("age_mae_years", "gender_accuracy", "emotion_accuracy")
RACE = "race"  # a column that some manifests have
# Columns of other manifests, of which a single value says nothing: how a picture is stored, how far its voters agree.
TELLING_IF_MIXED = ("format", "agreement")


@dataclass(frozen=True)
class Subgroup:
    """The metrics of the faces that share a value of an attribute. Accuracies are fractions."""

    attribute: str
    name: str
    faces: int
    age_mae_years: Interval
    gender_accuracy: Interval
    emotion_accuracy: Interval


@dataclass(frozen=True)
class Gap:
    """The largest minus the smallest value of a metric among the subgroups with at least MIN_FACES faces.

    Every subgroup is resampled by itself. The gap of several equal subgroups is above 0 by chance alone; its interval
    (evaluation.intervals.cautious_interval) then reaches 0.
    """

    attribute: str
    metric: str  # of METRICS
    best: str
    worst: str
    value: Interval


@dataclass(frozen=True)
class Subgroups:
    """All subgroups of one set of faces, and the gaps between them."""

    rows: tuple[Subgroup, ...]  # all faces first; none where no attribute is known
    gaps: tuple[Gap, ...]

    def to_frame(self) -> pd.DataFrame:
        """A row a subgroup, metrics with their intervals as columns."""
        return pd.json_normalize([asdict(row) for row in self.rows], sep="_").rename(
            columns=lambda name: name.removesuffix("_value")
        )

    def gaps_to_frame(self) -> pd.DataFrame:
        """A row an attribute and metric."""
        rows = [(g.attribute, g.metric, g.best, g.worst, g.value.value, g.value.low, g.value.high) for g in self.gaps]
        return pd.DataFrame(rows, columns=["attribute", "metric", "best", "worst", "gap", "gap_low", "gap_high"])


def attributes_of(table: pd.DataFrame) -> dict[str, pd.Series[str]]:
    """The subgroup of each face of a manifest by attribute, NaN where unknown; attributes that no face has are absent.

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
    scored = _by_metric(predictions, labels_of(table))
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


def _subgroup(attribute: str, name: str, chosen: NDArray[np.bool_], scored: dict[str, Values]) -> Subgroup:
    """Accuracies have Wilson's intervals, as some subgroups are a few faces, all of them right."""
    error, gender, emotion = (values[chosen] for values in scored.values())
    gender, emotion = gender[~np.isnan(gender)], emotion[~np.isnan(emotion)]
    return Subgroup(
        attribute,
        name,
        int(chosen.sum()),
        age_mae_years=mean_interval(error),
        gender_accuracy=share_interval(int(gender.sum()), len(gender)),
        emotion_accuracy=share_interval(int(emotion.sum()), len(emotion)),
    )


def _by_metric(predictions: Predictions, labels: Labels) -> dict[str, Values]:
    """What each face contributes to each of METRICS [n], NaN without the label."""
    per_face = PerFace.of(predictions, labels)
    return dict(
        zip(METRICS, (per_face.age_error_years, per_face.gender_correct, per_face.emotion_correct), strict=True)
    )


def _gaps(
    attribute: str, members: dict[str, NDArray[np.bool_]], scored: dict[str, Values], rng: np.random.Generator
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
        best, worst = (smallest, largest) if metric == "age_mae_years" else (largest, smallest)
        gap = cautious_interval(means[largest] - means[smallest], np.ptp(resampled, axis=0), np.ptp(noise, axis=0))
        yield Gap(attribute, metric, best, worst, gap)


def _named(
    names: Sequence[str], index: NDArray[np.int64], missing: NDArray[np.bool_], rows: pd.Index[int]
) -> pd.Series[str]:
    return pd.Series(np.array(names)[index], rows, dtype="str").mask(missing)


def _in_order(values: pd.Series[str]) -> list[str]:
    """Age groups by age, which is their alphabetical order too, and all else by name."""
    return sorted(values.dropna().unique())
