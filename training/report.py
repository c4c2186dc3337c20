"""The published report, made by us: a run's history, its evaluation by age group and what follows from the numbers.

python -m training.report --run runs/train --manifest data/synthetic/manifest.csv
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import tyro

from contract.files import replacing
from contract.metrics import GroupMetrics, Report
from contract.samples import ManifestError, Protocol, load_samples
from training import published
from training.checkpoint import BEST_NAME, Checkpoint, CheckpointError, load_checkpoint
from training.evaluate import evaluate_checkpoint
from training.history import read_history
from training.model import AgeGenderNet, parameter_count
from training.plots import plot_age_groups, plot_history

REPORT_NAME = "result_training.md"
MIN_GROUP_FACES = 30  # a group with fewer is in the tables, but no finding rests on it
CONTAMINATED = "all labelled faces, **the training images included**: comparable with the published table, not a test"
PROTOCOL_TITLES: dict[Protocol, str] = {
    "holdout": "faces neither trained nor selected on",
    "published": CONTAMINATED,
}


@dataclass(frozen=True)
class ReportConfig:
    """Write result_training.md and its pictures into the folder of a run."""

    run: Path
    manifest: Path


def write_report(run: Path, manifest: Path, *, device: torch.device) -> Path:
    """Evaluate the run's best checkpoint under both protocols and write pictures, tables (CSV) and Markdown."""
    checkpoint = load_checkpoint(run / BEST_NAME)
    reports: dict[Protocol, Report] = {}
    for protocol in PROTOCOL_TITLES:
        reports[protocol] = evaluate_checkpoint(checkpoint, load_samples(manifest, "test", protocol), device)
        reports[protocol].write_csv(run / f"metrics_{protocol}.csv")
    headline = _headline(checkpoint)
    plot_history(run, "final")
    plot_age_groups(
        reports[headline], run / "metrics_by_age_group.png", title=_picture_title(headline, reports[headline])
    )
    with replacing(run / REPORT_NAME) as temporary:
        temporary.write_text(_markdown(checkpoint, read_history(run), reports, headline), encoding="utf-8")
    print(reports[headline].to_markdown())
    print(f"wrote {run / REPORT_NAME}")
    return run / REPORT_NAME


def _headline(checkpoint: Checkpoint) -> Protocol:
    """A run that selected on the holdout faces has no clean test, so it reports as the published one did."""
    return "published" if checkpoint.config.get("protocol") == "published" else "holdout"


def _picture_title(protocol: Protocol, report: Report) -> str:
    contaminated = ", training images included" if protocol == "published" else ""
    return f"{report.overall.samples:,} faces, protocol {protocol}{contaminated}; bars: bootstrap 95 % intervals"


def _markdown(
    checkpoint: Checkpoint, history: pd.DataFrame, reports: dict[Protocol, Report], headline: Protocol
) -> str:
    sections = [
        "# Training result",
        _overall(reports[headline].overall, headline),
        *(_by_age_group(protocol, report) for protocol, report in reports.items()),
        "![Metrics by age group](metrics_by_age_group.png)",
        _published_comparison(reports["published"]),
        _key_findings(reports[headline], history),
        _model_information(checkpoint),
        _configuration(checkpoint, history),
        "![Training history](training_history_final.png)",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _overall(m: GroupMetrics, protocol: Protocol) -> str:
    age, gender, emotion = m.age_mae_years, m.gender_accuracy, m.emotion_accuracy
    return f"""## Overall metrics

{m.samples:,} faces, protocol `{protocol}`: {PROTOCOL_TITLES[protocol]}. Bootstrap 95 % intervals.

| metric | value | 95 % interval |
|---|---:|---:|
| age MAE (years) | {age:.2f} ± {m.age_error_std_years:.2f} | {age.low:.2f} to {age.high:.2f} |
| gender accuracy (%) | {100 * gender.value:.2f} | {100 * gender.low:.2f} to {100 * gender.high:.2f} |
| emotion accuracy (%) | {100 * emotion.value:.2f} | {100 * emotion.low:.2f} to {100 * emotion.high:.2f} |
| macro emotion recall (%) | {100 * m.macro_emotion_recall:.2f} | |"""


def _by_age_group(protocol: Protocol, report: Report) -> str:
    return f"## Metrics by age group, protocol `{protocol}`\n\n{PROTOCOL_TITLES[protocol]}\n\n{report.to_markdown()}"


def _published_comparison(ours: Report) -> str:
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


def _key_findings(report: Report, history: pd.DataFrame) -> str:
    overall, base = report.overall, report.baselines
    groups = [m for m in report.groups if m.samples >= MIN_GROUP_FACES] or report.groups
    youngest, oldest = (f(groups, key=lambda m: m.age_mae_years.value) for f in (min, max))
    gender_best, gender_worst = (f(groups, key=lambda m: m.gender_accuracy.value) for f in (max, min))
    emotion_best, emotion_worst = (f(groups, key=lambda m: m.emotion_accuracy.value) for f in (max, min))
    found = sorted(report.emotion_recall.items(), key=lambda item: item[1])
    best = history.iloc[int(history["selection_loss"].argmin())]
    gap = best["selection_age_mae_years"] - best["train_age_mae_years"]
    return f"""## Key findings

* Age is told best at {youngest.group} (MAE {youngest.age_mae_years:.2f} years) and worst at {oldest.group} \
({oldest.age_mae_years:.2f}); always answering {base.age_years:.0f} would give {base.age_mae_years:.2f}.
* Gender is told best at {gender_best.group} ({gender_best.gender_accuracy:.2%}) and worst at {gender_worst.group} \
({gender_worst.gender_accuracy:.2%}); always answering {base.gender} would give {base.gender_accuracy:.2%}.
* Emotion is told best at {emotion_best.group} ({emotion_best.emotion_accuracy:.2%}) and worst at \
{emotion_worst.group} ({emotion_worst.emotion_accuracy:.2%}); always answering {base.emotion} would give \
{base.emotion_accuracy:.2%}.
* Of the emotions, {found[0][0]} is found least often ({found[0][1]:.1%}) and {found[-1][0]} most often \
({found[-1][1]:.1%}); the mean over emotions is {overall.macro_emotion_recall:.1%}.
* The best epoch was {best["epoch"]:.0f} of {len(history)}; its age MAE on the selection faces was {gap:+.2f} years \
from that on the augmented training faces."""


def _model_information(checkpoint: Checkpoint) -> str:
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


def _configuration(checkpoint: Checkpoint, history: pd.DataFrame) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in checkpoint.config.items())
    return f"""## Training configuration

{len(history)} epochs, {history["images_per_s"].median():.0f} images/s (median epoch), of which data and augmentation \
took {history["data_share"].median():.1%}.

| setting | value |
|---|---|
{rows}"""


def main(config: ReportConfig) -> None:
    write_report(config.run, config.manifest, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    try:
        main(tyro.cli(ReportConfig))
    except (ManifestError, CheckpointError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
