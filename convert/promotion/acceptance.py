"""May one model replace another? Each score of the candidate against the incumbent's, within stated margins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evaluation.metrics import GroupMetrics, Report

MIN_GROUP_SAMPLES = 31  # in a smaller age group one face is more than 3 points of accuracy


@dataclass(frozen=True)
class Margins:
    """How much worse than the incumbent a candidate may be."""

    age_mae_years: float
    gender_accuracy: float  # a fraction: 0.01 is one point
    emotion_accuracy: float


@dataclass(frozen=True)
class Check:
    """One score of both models on the same faces."""

    group: str
    samples: int
    metric: str
    incumbent: float
    candidate: float
    margin: float

    @property
    def loss(self) -> float:
        """How much worse the candidate is; negative where it is better."""
        return (self.candidate - self.incumbent) * (1 if self.metric == "age_mae_years" else -1)

    @property
    def passed(self) -> bool:
        return self.loss <= self.margin + 1e-9  # a margin of 0.01 is to allow one face of a hundred: 1 - 0.99 > 0.01


def compare(candidate: Report, incumbent: Report, *, overall: Margins, group: Margins) -> tuple[Check, ...]:
    """Each score, overall and in every age group that is large enough; those that no face has a label for are left out.

    Raises ValueError where the two reports are of different faces.
    """
    faces = [[(g.group, g.samples) for g in (*report.groups, report.overall)] for report in (candidate, incumbent)]
    if faces[0] != faces[1]:
        raise ValueError("candidate and incumbent were evaluated on different faces")
    checks = list(_checks(candidate.overall, incumbent.overall, overall))
    for ours, theirs in zip(candidate.groups, incumbent.groups, strict=True):
        if ours.samples >= MIN_GROUP_SAMPLES:
            checks += _checks(ours, theirs, group)
    return tuple(checks)


def to_markdown(checks: tuple[Check, ...]) -> str:
    """The checks as a table, changes for the worse being positive."""
    lines = [
        "| age group | faces | score | incumbent | candidate | worse by | margin | |",
        "|---|---:|---|---:|---:|---:|---:|---|",
    ]
    for check in checks:
        cells = (
            check.group,
            f"{check.samples:,}",
            check.metric.replace("_", " "),
            *(f"{value:.4f}" for value in (check.incumbent, check.candidate)),
            f"{check.loss:+.4f}",
            f"{check.margin:g}",
            "pass" if check.passed else "**fail**",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _checks(candidate: GroupMetrics, incumbent: GroupMetrics, margins: Margins) -> list[Check]:
    found = []
    for metric, margin in vars(margins).items():
        before, after = getattr(incumbent, metric).value, getattr(candidate, metric).value
        if not math.isnan(before):
            found.append(Check(incumbent.group, incumbent.samples, metric, before, after, margin))
    return found
