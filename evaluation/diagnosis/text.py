"""A diagnosis in words and tables, every number with its 95 % interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from evaluation.diagnosis.age_error import AgeError
from evaluation.diagnosis.calibration import Calibration
from evaluation.diagnosis.confusion import Confusion
from evaluation.diagnosis.diagnose import Diagnosis
from evaluation.diagnosis.subgroups import MIN_FACES, Gap, Subgroups
from evaluation.intervals import Interval
from evaluation.metrics import HEADLINE, Metric
from evaluation.text import markdown_table

NO_PICTURES: Mapping[str, str] = {}
INTERVALS = (
    "In brackets 95 % intervals: bootstrap, for ECE and gaps with what chance alone adds taken off the lower end; "
    "Wilson's for shares of single classes and subgroups, some of which are a few faces."
)


def to_markdown(diagnosis: Diagnosis, pictures: Mapping[str, str] = NO_PICTURES, *, level: int = 2) -> str:
    """Return all sections; `pictures` are paths by section (calibration, age_error, ..., worst_<head>)."""
    sections = {
        "calibration": ("Calibration", calibration_table(diagnosis.calibration.values())),
        "age_error": ("Error by age", _age_error(diagnosis.age_error) if diagnosis.age_error else ""),
        "confusion": ("Confusions", "\n\n".join(map(_confusion, diagnosis.confusion.values()))),
        "subgroups": ("Subgroups", "\n\n".join(_subgroups(diagnosis.subgroups))),
    }
    parts = [f"{diagnosis.faces:,} faces. {INTERVALS}"]
    for key, (title, text) in sections.items():
        if text:
            picture = [f"![{title}]({pictures[key]})"] if key in pictures else []
            parts.append("\n\n".join([f"{'#' * level} {title}", *picture, text]))
    if links := [
        f"[{head}]({path})" for head in diagnosis.worst if (path := pictures.get(f"worst_{head}")) is not None
    ]:
        parts.append(f"{'#' * level} Worst faces\n\nFurthest off, or wrong with most confidence: {', '.join(links)}.")
    return "\n\n".join(parts)


def calibration_table(calibrations: Iterable[Calibration]) -> str:
    """Return a row a head; empty without any."""
    rows = [
        (
            c.head,
            f"{c.faces:,}",
            f"{100 * c.confidence:.2f}",
            c.accuracy.text(scale=100),
            c.ece.text(scale=100),
            c.brier.text(digits=3),
        )
        for c in calibrations
    ]
    return (
        ""
        if not rows
        else markdown_table(
            ["head", "faces", "mean confidence (%)", "accuracy (%)", "ECE (points)", "Brier score"], rows
        )
    )


def gap_table(gaps: Iterable[Gap]) -> str:
    """Return a row a metric and attribute; empty without any."""
    rows = [
        (
            g.metric.change_title,
            g.attribute,
            g.best,
            g.worst,
            g.value.text(scale=g.metric.scale),
        )
        for g in sorted(gaps, key=lambda gap: HEADLINE.index(gap.metric))
    ]
    return "" if not rows else markdown_table(["metric", "between", "best", "worst", "gap"], rows, text_columns=4)


def _age_error(error: AgeError) -> str:
    rows = [(f"{b.low}-{b.high - 1}", f"{b.faces:,}", b.mae_years.text(), b.bias_years.text()) for b in error.bins]
    summary = (
        f"MAE {error.mae_years.text()} years, mean error {error.bias_years.text()}; half of the {error.faces:,} faces "
        f"are within {error.median_years:.2f} years, nine in ten within {error.p90_years:.2f}. A mean error above 0 is "
        "being taken for older."
    )
    return summary + "\n\n" + markdown_table(["age (years)", "faces", "MAE (years)", "mean error (years)"], rows)


def _confusion(confusion: Confusion) -> str:
    recall, precision = confusion.recall, confusion.precision
    rows = []
    for i, name in enumerate(confusion.labelled):
        others = np.where(np.array(confusion.answered) == name, 0, confusion.counts[i])
        share = others.max() / confusion.counts[i].sum()
        rows.append(
            (
                name,
                f"{confusion.counts[i].sum():,}",
                _percent(recall[name]),
                _percent(precision[name]),
                f"{confusion.answered[int(others.argmax())]} ({share:.0%})" if share else "-",
            )
        )
    header = [confusion.head, "faces", "recall (%)", "precision (%)", "most often taken for"]
    balanced = (
        f"Balanced accuracy of {confusion.head}, the mean of the recalls: {_percent(confusion.balanced_accuracy)} %."
    )
    return f"{balanced}\n\n{markdown_table(header, rows)}"


def _subgroups(subgroups: Subgroups) -> Iterator[str]:
    if not subgroups.rows:
        return
    yield (
        f"The gap is the largest minus the smallest value among subgroups of at least {MIN_FACES} faces; an interval "
        "that reaches 0 allows that there is none."
    )
    if subgroups.gaps:
        yield gap_table(subgroups.gaps)
    known = [metric for metric in HEADLINE if any(row.scores[metric].known for row in subgroups.rows)]
    rows = [(r.attribute, r.name, f"{r.faces:,}", *(_score(r.scores[m], m) for m in known)) for r in subgroups.rows]
    yield markdown_table(["by", "subgroup", "faces", *(metric.title for metric in known)], rows, text_columns=2)


def _score(interval: Interval, metric: Metric) -> str:
    return interval.text(scale=metric.scale, digits=1 if metric.unit == "%" else 2)


def _percent(interval: Interval) -> str:
    return interval.text(scale=100, digits=1)
