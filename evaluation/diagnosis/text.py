"""A diagnosis in words and tables, every number with its 95 % interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from contract.samples import Samples
from contract.spec import Predictions
from evaluation.diagnosis.age_error import AgeError
from evaluation.diagnosis.calibration import Calibration
from evaluation.diagnosis.confusion import Confusion
from evaluation.diagnosis.numbers import Diagnosis, diagnose, write_tables, write_text
from evaluation.diagnosis.subgroups import MIN_FACES, Gap, Subgroup, Subgroups
from evaluation.intervals import Interval

NO_PICTURES: Mapping[str, str] = {}
METRIC_NAMES = {
    "age_mae_years": "age MAE (years)",
    "gender_accuracy": "gender accuracy (points)",
    "emotion_accuracy": "emotion accuracy (points)",
}
INTERVALS = (
    "In brackets 95 % intervals: bootstrap, for ECE and gaps with what chance alone adds taken off the lower end; "
    "Wilson's for shares of single classes and subgroups, some of which are a few faces."
)


def write_numbers(predictions: Predictions, samples: Samples, folder: Path, *, title: str) -> None:
    """Diagnose and write the CSVs and diagnosis.md, without pictures."""
    diagnosis = diagnose(predictions, samples)
    write_tables(diagnosis, predictions, samples, folder)
    write_text(f"# {title}\n\n{to_markdown(diagnosis)}\n", folder)


def to_markdown(diagnosis: Diagnosis, pictures: Mapping[str, str] = NO_PICTURES, *, level: int = 2) -> str:
    """All sections; `pictures` are paths by section: calibration, age_error, confusion, subgroups, worst_<head>."""
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
    """A row a head; empty without any."""
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
    return _table(["head", "faces", "mean confidence (%)", "accuracy (%)", "ECE (points)", "Brier score"], rows)


def gap_table(gaps: Iterable[Gap]) -> str:
    """A row a metric and attribute; empty without any."""
    rows = [
        (
            METRIC_NAMES[g.metric],
            g.attribute,
            g.best,
            g.worst,
            g.value.text() if g.metric == "age_mae_years" else g.value.text(scale=100),
        )
        for g in sorted(gaps, key=lambda gap: list(METRIC_NAMES).index(gap.metric))
    ]
    return _table(["metric", "between", "best", "worst", "gap"], rows, text_columns=4)


def _age_error(error: AgeError) -> str:
    rows = [(f"{b.low}-{b.high - 1}", f"{b.faces:,}", b.mae_years.text(), b.bias_years.text()) for b in error.bins]
    summary = (
        f"MAE {error.mae_years.text()} years, mean error {error.bias_years.text()}; half of the {error.faces:,} faces "
        f"are within {error.median_years:.2f} years, nine in ten within {error.p90_years:.2f}. A mean error above 0 is "
        "being taken for older."
    )
    return summary + "\n\n" + _table(["age (years)", "faces", "MAE (years)", "mean error (years)"], rows)


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
    return f"{balanced}\n\n{_table(header, rows)}"


def _subgroups(subgroups: Subgroups) -> Iterator[str]:
    if not subgroups.rows:
        return
    yield (
        f"The gap is the largest minus the smallest value among subgroups of at least {MIN_FACES} faces; an interval "
        "that reaches 0 allows that there is none."
    )
    if subgroups.gaps:
        yield gap_table(subgroups.gaps)
    known = [name for name in METRIC_NAMES if any(getattr(row, name).known for row in subgroups.rows)]
    names = {"age_mae_years": "age MAE (years)", "gender_accuracy": "gender (%)", "emotion_accuracy": "emotion (%)"}
    rows = [(r.attribute, r.name, f"{r.faces:,}", *(_metric(r, name) for name in known)) for r in subgroups.rows]
    yield _table(["by", "subgroup", "faces", *(names[name] for name in known)], rows, text_columns=2)


def _metric(row: Subgroup, name: str) -> str:
    interval: Interval = getattr(row, name)
    return interval.text() if name == "age_mae_years" else _percent(interval)


def _percent(interval: Interval) -> str:
    return interval.text(scale=100, digits=1)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    if not rows:
        return ""
    rule = ["---" if i < text_columns else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))
