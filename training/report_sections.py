"""The sections of result_training.md: text from numbers, nothing read or written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from contract.samples import Protocol
from evaluation.diagnosis.text import calibration_table, gap_table
from evaluation.diagnosis.written import Drawn
from evaluation.metrics import HEADLINE, METRICS, GroupMetrics, Metric, Report
from evaluation.text import markdown_table
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
    """Write the headline of several datasets: a row each."""
    rows = [
        [name, f"{m.samples:,}", *(m.score(metric).text(scale=metric.scale) for metric in HEADLINE)]
        for name, report in reports.items()
        for m in [report.overall]
    ]
    return f"""## Overall metrics by dataset

Protocol `{protocol}`: {PROTOCOL_TITLES[protocol]}. In brackets bootstrap 95 % intervals.

{markdown_table(["dataset", "faces", *(metric.title for metric in HEADLINE)], rows)}"""


def overall(m: GroupMetrics, protocol: Protocol) -> str:
    """Write every score over all faces with its interval."""
    return f"""## Overall metrics

{m.samples:,} faces, protocol `{protocol}`: {PROTOCOL_TITLES[protocol]}. Bootstrap 95 % intervals.

{markdown_table(["metric", "value", "95 % interval"], _overall_rows(m))}"""


def _overall_rows(m: GroupMetrics) -> Iterator[list[str]]:
    for metric in METRICS.values():
        found, scale = m.score(metric), metric.scale
        spread = f" ± {m.age_error_std_years:.2f}" if metric.name == "age_mae_years" else ""
        if found.known:
            interval = f"{scale * found.low:.2f} to {scale * found.high:.2f}"
            yield [metric.title, f"{scale * found.value:.2f}{spread}", interval]
    if not math.isnan(m.macro_emotion_recall):
        yield ["macro emotion recall (%)", f"{100 * m.macro_emotion_recall:.2f}", ""]


def by_age_group(protocol: Protocol, report: Report) -> str:
    """Write the table by age group and what it is of."""
    return f"## Metrics by age group, protocol `{protocol}`\n\n{PROTOCOL_TITLES[protocol]}\n\n{report.to_markdown()}"


def published_comparison(ours: Report) -> str:
    """Set our table beside the published one, if the number of faces in each group proves that they are the same."""
    if {m.group: m.samples for m in ours.rows} != {name: row.samples for name, row in published.BY_AGE_GROUP.items()}:
        return ""
    rows = [
        [
            m.group,
            f"{m.samples:,}",
            f"{m.age_mae_years:.2f} / {row.age_mae_years:.2f}",
            f"{100 * m.gender_accuracy.value:.2f} / {row.gender_percent:.2f}",
            f"{100 * m.emotion_accuracy.value:.2f} / {row.emotion_percent:.2f}",
        ]
        for m in ours.rows
        for row in [published.BY_AGE_GROUP[m.group]]
    ]
    return f"""## Beside the published figures (ours / published)

Protocol `published`, {CONTAMINATED}. Published best epoch {published.BEST_EPOCH}, validation loss \
{published.BEST_VALIDATION_LOSS}.

{markdown_table(["age group", "samples", *(metric.title for metric in HEADLINE)], rows)}"""


def key_findings(report: Report) -> str:
    """Write what the numbers say, in sentences."""
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
            best_and_worst = _best_and_worst(report, METRICS[metric], text)
            yield f"{head}: {best_and_worst}; always answering {constant} would give {text(baseline)}."
    if found := sorted(report.emotion_recall.items(), key=lambda item: item[1]):
        yield (
            f"Of the emotions, {found[0][0]} is found least often ({found[0][1]:.1%}) and {found[-1][0]} most often "
            f"({found[-1][1]:.1%}); the mean over emotions is {report.overall.macro_emotion_recall:.1%}."
        )


def _best_and_worst(report: Report, metric: Metric, text: Callable[[float], str]) -> str:
    """Name the best and the worst of the groups with enough faces; of fewer than two such, say the value of all."""
    values = {m.group: m.score(metric).value for m in report.groups if m.samples >= MIN_GROUP_FACES}
    known = {group: value for group, value in values.items() if not math.isnan(value)}
    if len(known) < 2:
        return text(report.overall.score(metric).value)
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    best, worst = (low, high) if metric.better == "lower" else (high, low)
    return f"best at {best} ({text(known[best])}) and worst at {worst} ({text(known[worst])})"


def diagnosis(drawn: Drawn, folder: str, text_name: str) -> str:
    """Write the main numbers and show all pictures; `folder` is where the pictures are, relative to the report."""
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
    """Write what the network is."""
    network = checkpoint.network
    total, without_emotion = parameter_count(network), parameter_count(network) - parameter_count(network.emotion_head)
    rows = [
        ("architecture", f"{AgeGenderNet.__name__}: residual trunk with CBAM, three dense layers, three heads"),
        ("parameters", f"{total:,} ({without_emotion:,} without the emotion head, the published figure)"),
        ("request", "canonical face image, 128 x 128 RGB, uint8"),
        ("network resolution", f"{checkpoint.resolution} x {checkpoint.resolution}"),
        (
            "best epoch",
            f"{checkpoint.metrics['epoch']:.0f}, selection loss {checkpoint.metrics['selection_loss']:.4f}",
        ),
    ]
    return f"## Model information\n\n{markdown_table(['', ''], rows, text_columns=2)}"


def configuration(checkpoint: Checkpoint, history: pd.DataFrame) -> str:
    """Write how the run went and every setting."""
    rows = [(name, _setting(value)) for name, value in checkpoint.config.items()]
    return f"""## Training configuration

{_course(history)} {history["images_per_s"].median():.0f} images/s (median epoch), of which data and augmentation \
took {history["data_share"].median():.1%}.

{markdown_table(["setting", "value"], rows, text_columns=2)}"""


def _course(history: pd.DataFrame) -> str:
    """Say how many epochs there were and what the best one tells of overfitting."""
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
    """Move a section one heading level down, as part of a dataset's."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in section.splitlines())
