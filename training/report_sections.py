"""The sections of result_training.md: text from numbers, nothing read or written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

import pandas as pd

from contract.samples import Protocol
from evaluation.diagnosis.drawn import Drawn
from evaluation.diagnosis.text import calibration_table, gap_table
from evaluation.intervals import Interval
from evaluation.metrics import GroupMetrics, Report
from training import published
from training.loop.history import best_epoch
from training.network.checkpoint import Checkpoint
from training.network.model import AgeGenderNet, parameter_count

MIN_GROUP_FACES = 30  # a group with fewer is in the tables, but no finding rests on it
CONTAMINATED = "all labelled faces, **the training images included**: comparable with the published table, not a test"
PROTOCOL_TITLES: dict[Protocol, str] = {
    "holdout": "faces neither trained nor selected on",
    "published": CONTAMINATED,
}


def overview(reports: Mapping[str, Report], protocol: Protocol) -> str:
    """The headline of several datasets: a row each."""
    rows = [
        f"| {name} | {m.samples:,} | {m.age_mae_years.text()} | {m.gender_accuracy.text(scale=100)} "
        f"| {m.emotion_accuracy.text(scale=100)} |"
        for name, report in reports.items()
        for m in [report.overall]
    ]
    return "\n".join([
        "## Overall metrics by dataset",
        "",
        f"Protocol `{protocol}`: {PROTOCOL_TITLES[protocol]}. In brackets bootstrap 95 % intervals.",
        "",
        "| dataset | faces | age MAE (years) | gender accuracy (%) | emotion accuracy (%) |",
        "|---|---:|---:|---:|---:|",
        *rows,
    ])  # fmt: skip


def overall(m: GroupMetrics, protocol: Protocol) -> str:
    age, gender, emotion = m.age_mae_years, m.gender_accuracy, m.emotion_accuracy
    rows = [
        (age, "age MAE (years)", f"{age:.2f} ± {m.age_error_std_years:.2f}", f"{age.low:.2f} to {age.high:.2f}"),
        *(
            (accuracy, name, f"{100 * accuracy.value:.2f}", f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f}")
            for accuracy, name in ((gender, "gender accuracy (%)"), (emotion, "emotion accuracy (%)"))
        ),
        (emotion, "macro emotion recall (%)", f"{100 * m.macro_emotion_recall:.2f}", ""),
    ]
    table = "\n".join(f"| {name} | {value} | {interval} |" for metric, name, value, interval in rows if metric.known)
    return f"""## Overall metrics

{m.samples:,} faces, protocol `{protocol}`: {PROTOCOL_TITLES[protocol]}. Bootstrap 95 % intervals.

| metric | value | 95 % interval |
|---|---:|---:|
{table}"""


def by_age_group(protocol: Protocol, report: Report) -> str:
    return f"## Metrics by age group, protocol `{protocol}`\n\n{PROTOCOL_TITLES[protocol]}\n\n{report.to_markdown()}"


def published_comparison(ours: Report) -> str:
    """Only where the faces are those of the published table, which the number in each group proves."""
    counts = {m.group: m.samples for m in (*ours.groups, ours.overall)}
    if counts != {group: row.samples for group, row in published.BY_AGE_GROUP.items()}:
        return ""
    rows = [
        f"| {m.group} | {m.samples:,} | {m.age_mae_years:.2f} / {row.age_mae_years:.2f} "
        f"| {100 * m.gender_accuracy.value:.2f} / {row.gender_percent:.2f} "
        f"| {100 * m.emotion_accuracy.value:.2f} / {row.emotion_percent:.2f} |"
        for m in (*ours.groups, ours.overall)
        for row in [published.BY_AGE_GROUP[m.group]]
    ]
    return "\n".join([
        "## Beside the published figures (ours / published)",
        "",
        f"Protocol `published`, {CONTAMINATED}. Published best epoch {published.BEST_EPOCH}, validation loss "
        f"{published.BEST_VALIDATION_LOSS}.",
        "",
        "| age group | samples | age MAE (years) | gender accuracy (%) | emotion accuracy (%) |",
        "|---|---:|---:|---:|---:|",
        *rows,
    ])  # fmt: skip


def key_findings(report: Report) -> str:
    return "\n".join(["## Key findings", "", *(f"* {finding}" for finding in _findings(report))])


def _findings(report: Report) -> Iterator[str]:
    base = report.baselines
    heads: tuple[tuple[str, str, Callable[[float], str], str, float], ...] = (
        ("Age", "age_mae_years", "MAE {:.2f} years".format, f"{base.age_years:.0f}", base.age_mae_years),
        ("Gender", "gender_accuracy", "accuracy {:.2%}".format, base.gender, base.gender_accuracy),
        ("Emotion", "emotion_accuracy", "accuracy {:.2%}".format, base.emotion, base.emotion_accuracy),
    )
    for head, metric, text, constant, baseline in heads:
        if not math.isnan(baseline):
            best_and_worst = _best_and_worst(report, metric, text)
            yield f"{head}: {best_and_worst}; always answering {constant} would give {text(baseline)}."
    if found := sorted(report.emotion_recall.items(), key=lambda item: item[1]):
        yield (
            f"Of the emotions, {found[0][0]} is found least often ({found[0][1]:.1%}) and {found[-1][0]} most often "
            f"({found[-1][1]:.1%}); the mean over emotions is {report.overall.macro_emotion_recall:.1%}."
        )


def _best_and_worst(report: Report, metric: str, text: Callable[[float], str]) -> str:
    """Of the groups with enough faces; where fewer than two have, of all faces together."""

    def value(m: GroupMetrics) -> float:
        interval: Interval = attrgetter(metric)(m)
        return interval.value

    groups = [m for m in report.groups if m.samples >= MIN_GROUP_FACES and not math.isnan(value(m))]
    if len(groups) < 2:
        return text(value(report.overall))
    low, high = min(groups, key=value), max(groups, key=value)
    best, worst = (low, high) if metric == "age_mae_years" else (high, low)
    return f"best at {best.group} ({text(value(best))}) and worst at {worst.group} ({text(value(worst))})"


def diagnosis(drawn: Drawn, folder: str, text_name: str) -> str:
    """The main numbers and all pictures; `folder` is where the pictures are, relative to the report."""
    titles = {
        "calibration": "Calibration",
        "age_error": "Error by age",
        "confusion": "Confusion matrices",
        "subgroups": "Metrics by subgroup",
    }
    pictures = {section: f"![{titles[section]}]({folder}/{drawn.pictures[section]})"
                for section in titles if section in drawn.pictures}  # fmt: skip
    sheets = [f"[{head}]({folder}/{drawn.pictures[f'worst_{head}']})" for head in drawn.diagnosis.worst]
    parts = [
        "## Calibration, confusions and subgroups",
        f"All numbers, and what the intervals are: [{folder}/{text_name}]({folder}/{text_name}).",
        pictures.get("calibration", ""),
        calibration_table(drawn.diagnosis.calibration.values()),
        pictures.get("age_error", ""),
        pictures.get("confusion", ""),
        pictures.get("subgroups", ""),
        gap_table(drawn.diagnosis.subgroups.gaps),
        f"The faces furthest off, or wrong with most confidence: {', '.join(sheets)}." if sheets else "",
    ]
    return "\n\n".join(part for part in parts if part)


def model_information(checkpoint: Checkpoint) -> str:
    network = checkpoint.network
    total, without_emotion = parameter_count(network), parameter_count(network) - parameter_count(network.emotion_head)
    return f"""## Model information

| | |
|---|---|
| architecture | {AgeGenderNet.__name__}: residual trunk with CBAM, three dense layers, three heads |
| parameters | {total:,} ({without_emotion:,} without the emotion head, the published figure) |
| request | canonical face image, 128 x 128 RGB, uint8 |
| network resolution | {checkpoint.resolution} x {checkpoint.resolution} |
| best epoch | {checkpoint.metrics["epoch"]:.0f}, selection loss {checkpoint.metrics["selection_loss"]:.4f} |"""


def configuration(checkpoint: Checkpoint, history: pd.DataFrame) -> str:
    rows = "\n".join(f"| {name} | {_setting(value)} |" for name, value in checkpoint.config.items())
    return f"""## Training configuration

{_course(history)} {history["images_per_s"].median():.0f} images/s (median epoch), of which data and augmentation \
took {history["data_share"].median():.1%}.

| setting | value |
|---|---|
{rows}"""


def _course(history: pd.DataFrame) -> str:
    """How many epochs there were and what the best one says of overfitting."""
    best = best_epoch(history)
    gap = best["selection_age_mae_years"] - best["train_age_mae_years"]
    course = f"{len(history)} epochs, the best was {best['epoch']:.0f}"
    if math.isnan(gap):
        return f"{course}."
    return (
        f"{course}: its age MAE on the selection faces was {gap:+.2f} years from that on the augmented training faces."
    )


def _setting(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def deeper(section: str) -> str:
    """The same section one heading level down, as part of a dataset's."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in section.splitlines())
