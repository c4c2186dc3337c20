"""May one model's answers stand for another's? Differences, what they do to the scores, and the verdict.

Export, release, parity, the INT8 gate, promotion and the comparison of servers all ask here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from contract.samples import Labels
from contract.spec import Predictions
from evaluation.intervals import Values
from evaluation.limits import Limits
from evaluation.metrics import METRICS, GroupMetrics, Metric, Report, group_masks, score
from evaluation.text import markdown_table

# What the largest difference on any face is taken of: a name as in Limits, and how it is printed.
HEADS = {
    "age_years": "age (years)",
    "gender_probability": "gender (probability)",
    "emotion_probability": "emotion (probability)",
}
MIN_GROUP_SAMPLES = 31  # in a smaller age group one face is more than 3 points of accuracy
_ROUNDING = 1e-9  # a limit of 0.01 is to allow one face of a hundred: 1 - 0.99 > 0.01


@dataclass(frozen=True)
class Check:
    """One figure held against its limit: a head's largest difference, or a score of both models."""

    group: str
    samples: int
    metric: str  # of HEADS or of evaluation.metrics.METRICS
    reference: float  # of a difference 0, the reference's from itself
    found: float
    loss: float  # how much worse the found one is; negative where it is better
    limit: float

    @property
    def passed(self) -> bool:
        """Return whether the loss is within the limit; a NaN is not."""
        return self.loss <= self.limit + _ROUNDING

    def __str__(self) -> str:
        where = "" if self.group == "all" else f"{self.group}: "
        if self.metric in HEADS:
            return f"{where}{HEADS[self.metric]} differs by up to {self.loss:.2g}, limit {self.limit:g}"
        metric, change = METRICS[self.metric], self.found - self.reference
        if metric.unit == "%":
            return f"{where}{metric.label} {100 * change:+.2f} points, limit {-100 * self.limit:.2f}"
        return f"{where}{metric.label} {change:+.4f} {metric.unit}, limit {self.limit:g}"


def excesses(checks: Iterable[Check]) -> list[str]:
    """Return the verdict: a line for each limit that is exceeded, none where all are kept."""
    return [str(check) for check in checks if not check.passed]


def check_answers(found: Predictions, reference: Predictions, limits: Limits) -> tuple[Check, ...]:
    """Compare answers to the same faces, face by face, with the limits of the largest differences."""
    return tuple(_difference_checks("all", len(found), _largest(found, reference), limits))


def describe(checks: Iterable[Check]) -> str:
    """Return what was found of each head, within the limit or not: `age (years) 1.2e-05 (limit 0.001), ...`."""
    return ", ".join(f"{HEADS[check.metric]} {check.loss:.2g} (limit {check.limit:g})" for check in checks)


@dataclass(frozen=True)
class GroupAgreement:
    """One age group or all faces: differences per head, and the scores of both."""

    found: GroupMetrics
    reference: GroupMetrics
    largest: dict[str, float]  # by HEADS
    mean: dict[str, float]
    labelled: dict[str, int]  # the faces that each metric counts

    def change(self, metric: Metric) -> float:
        """Return what a score gained, positive where the number is larger; NaN without labels."""
        return self.found.score(metric).value - self.reference.score(metric).value

    def change_text(self, metric: Metric) -> str:
        """Return the change in the metric's unit, with its sign; a dash without labels."""
        digits = 2 if metric.unit == "%" else 4
        return f"{metric.scale * self.change(metric):+.{digits}f}" if self.labelled[metric.name] else "-"

    def check(self, limits: Limits) -> Iterator[Check]:
        """Hold every figure that has a limit against it; a score that no face has a label for is left out."""
        group, samples = self.found.group, self.found.samples
        yield from _difference_checks(group, samples, self.largest, limits)
        for name, metric in METRICS.items():
            limit, faces = limits.of(name), self.labelled[name]
            if limit is None or not faces:
                continue
            if limits.allow_one_face and metric.unit == "%":
                limit = max(limit, 1 / faces)
            reference, found = self.reference.score(metric).value, self.found.score(metric).value
            yield Check(group, samples, name, reference, found, metric.loss(found, reference), limit)


@dataclass(frozen=True)
class Agreement:
    """What changes where `found` answers in the place of `reference`, for the same faces."""

    found: Report
    reference: Report
    groups: tuple[GroupAgreement, ...]  # by age, and all faces last

    @property
    def overall(self) -> GroupAgreement:
        """Return the row of all faces."""
        return self.groups[-1]

    def check(self, limits: Limits, *, by_group: Limits | None = None) -> tuple[Check, ...]:
        """Hold all faces against `limits`, and each age group that is large enough against `by_group`."""
        checks = list(self.overall.check(limits))
        for group in self.groups[:-1] if by_group else ():
            if by_group and group.found.samples >= MIN_GROUP_SAMPLES:
                checks += group.check(by_group)
        return tuple(checks)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per age group and one for all.

        Columns: group, samples, {age_years,gender_probability,emotion_probability}_{max,mean}, {each metric}_change.
        """
        return pd.DataFrame(
            {"group": row.found.group, "samples": row.found.samples}
            | {f"{head}_max": row.largest[head] for head in HEADS}
            | {f"{head}_mean": row.mean[head] for head in HEADS}
            | {f"{name}_change": row.change(metric) for name, metric in METRICS.items()}
            for row in self.groups
        )

    def to_markdown(self) -> str:
        """Return the table: per head the largest and the mean difference, and the change of each score."""
        metrics = METRICS.values()
        rows = (
            [
                row.found.group,
                f"{row.found.samples:,}",
                *(f"{row.largest[head]:.1e} / {row.mean[head]:.1e}" for head in HEADS),
                *(row.change_text(metric) for metric in metrics),
            ]
            for row in self.groups
        )
        return markdown_table(
            ["age group", "samples", *HEADS.values(), *(metric.change_title for metric in metrics)], rows
        )


def agree(found: Predictions, reference: Predictions, labels: Labels) -> Agreement:
    """Compare two models' answers to the same labelled faces. Raises ValueError as evaluation.metrics.score does."""
    reports = score(found, labels), score(reference, labels)
    differences = face_differences(found, reference)
    labelled = {name: ~np.isnan(metric.per_face(found, labels)) for name, metric in METRICS.items()}
    groups = tuple(
        GroupAgreement(
            ours,
            theirs,
            {head: float(values[chosen].max()) for head, values in differences.items()},
            {head: float(values[chosen].mean()) for head, values in differences.items()},
            {name: int(known[chosen].sum()) for name, known in labelled.items()},
        )
        for ours, theirs, chosen in zip(*(r.rows for r in reports), group_masks(labels).values(), strict=True)
    )
    return Agreement(*reports, groups)


def face_differences(found: Predictions, reference: Predictions) -> dict[str, Values]:
    """Return the absolute difference of each head on each face [N]; of emotions the largest of the eight."""
    return {
        "age_years": np.abs(found.age - reference.age).astype(np.float64),
        "gender_probability": np.abs(found.gender - reference.gender).astype(np.float64),
        "emotion_probability": np.abs(found.emotion - reference.emotion).max(1).astype(np.float64),
    }


def _largest(found: Predictions, reference: Predictions) -> dict[str, float]:
    return {head: float(values.max()) for head, values in face_differences(found, reference).items()}


def _difference_checks(group: str, samples: int, largest: dict[str, float], limits: Limits) -> Iterator[Check]:
    for head, value in largest.items():
        if (limit := limits.of(head)) is not None:
            yield Check(group, samples, head, 0.0, value, value, limit)
