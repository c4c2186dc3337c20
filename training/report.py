"""The published report, made by us: a run's history, its evaluation by age group and what follows from the numbers.

    python -m training.report --run runs/train --manifest data/synthetic/manifest.csv

A dataset of several gets a section and files of its own, named after its folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from contract.files import replacing
from contract.samples import ManifestError, Protocol, Samples, load_samples, read_manifest
from contract.spec import Predictions
from evaluation.diagnosis.drawn import Drawn, write_diagnosis
from evaluation.diagnosis.numbers import DIAGNOSIS_NAME
from evaluation.metrics import Report, score
from evaluation.plots import plot_age_groups
from training import report_sections as sections
from training.evaluate import names_of, predict_all
from training.loop.history import read_history
from training.loop.plots import plot_history
from training.network.checkpoint import BEST_NAME, Checkpoint, CheckpointError, load_checkpoint

REPORT_NAME = "result_training.md"
DIAGNOSIS_FOLDER = "diagnosis"  # in the run's folder


@dataclass(frozen=True)
class ReportConfig:
    """Write result_training.md and its pictures into the folder of a run."""

    run: Path
    manifest: tuple[Path, ...]


@dataclass(frozen=True)
class Evaluated:
    """One dataset under each protocol that it has, and the answers of the headline one."""

    reports: dict[Protocol, Report]
    predictions: Predictions
    samples: Samples
    picture: str | None  # by age group; a dataset without ages has none


def write_report(run: Path, manifests: Sequence[Path], *, device: torch.device) -> Path:
    """Evaluate the run's best checkpoint on each dataset and write pictures, tables (CSV) and Markdown."""
    checkpoint = load_checkpoint(run / BEST_NAME)
    headline = _headline(checkpoint)
    datasets: dict[str, Evaluated] = {}
    for name, manifest in zip(names_of(manifests), manifests, strict=True):
        prefix = f"metrics_{name}" if len(manifests) > 1 else "metrics"
        datasets[name] = _evaluate(checkpoint, manifest, run, prefix, headline, device)
    plot_history(run, "final")
    drawn = write_diagnosis(
        {name: (found.predictions, found.samples) for name, found in datasets.items()},
        run / DIAGNOSIS_FOLDER,
        title=f"Diagnosis of {run / BEST_NAME}, test faces, protocol {headline}",
    )
    with replacing(run / REPORT_NAME) as temporary:
        temporary.write_text(_markdown(checkpoint, run, datasets, drawn, headline), encoding="utf-8")
    for name, found in datasets.items():
        print(f"{name}\n\n{found.reports[headline].to_markdown()}\n")
    print(f"wrote {run / REPORT_NAME}")
    return run / REPORT_NAME


def _headline(checkpoint: Checkpoint) -> Protocol:
    """A run that selected on the holdout faces has no clean test, so it reports as the published one did."""
    return "published" if checkpoint.config.get("protocol") == "published" else "holdout"


def _protocols(manifest: Path, headline: Protocol) -> tuple[Protocol, ...]:
    """`published` is of FFHQ and what is split as it is, which the faces of age zero, set aside there, tell."""
    if headline == "published" or (read_manifest(manifest)["split"] == "age_zero").any():
        return ("holdout", "published")
    return ("holdout",)


def _evaluate(
    checkpoint: Checkpoint, manifest: Path, run: Path, prefix: str, headline: Protocol, device: torch.device
) -> Evaluated:
    reports: dict[Protocol, Report] = {}
    answers: dict[Protocol, tuple[Predictions, Samples]] = {}
    for protocol in _protocols(manifest, headline):
        samples = load_samples(manifest, "test", protocol)
        predictions = predict_all(checkpoint, samples, device)
        answers[protocol] = predictions, samples
        reports[protocol] = score(predictions, samples.labels)
        reports[protocol].write_csv(run / f"{prefix}_{protocol}.csv")
    title = _picture_title(headline, reports[headline])
    picture = plot_age_groups(reports[headline], run / f"{prefix}_by_age_group.png", title=title)
    return Evaluated(reports, *answers[headline], picture.name if picture else None)


def _picture_title(protocol: Protocol, report: Report) -> str:
    contaminated = ", training images included" if protocol == "published" else ""
    return f"{report.overall.samples:,} faces, protocol {protocol}{contaminated}; bars: bootstrap 95 % intervals"


def _markdown(
    checkpoint: Checkpoint, run: Path, datasets: Mapping[str, Evaluated], drawn: Mapping[str, Drawn], headline: Protocol
) -> str:
    parts = ["# Training result"]
    if len(datasets) == 1:
        [(name, found)] = datasets.items()
        parts += _dataset(found, drawn[name], headline)
    else:
        parts.append(sections.overview({name: found.reports[headline] for name, found in datasets.items()}, headline))
        for name, found in datasets.items():
            parts += [f"## {name}", *map(sections.deeper, _dataset(found, drawn[name], headline))]
    parts += [
        sections.model_information(checkpoint),
        sections.configuration(checkpoint, read_history(run)),
        "![Training history](training_history_final.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _dataset(found: Evaluated, drawn: Drawn, headline: Protocol) -> list[str]:
    reports = found.reports
    return [
        sections.overall(reports[headline].overall, headline),
        *(sections.by_age_group(protocol, report) for protocol, report in reports.items()),
        f"![Metrics by age group]({found.picture})" if found.picture else "",
        sections.published_comparison(reports["published"]) if "published" in reports else "",
        sections.key_findings(reports[headline]),
        sections.diagnosis(drawn, DIAGNOSIS_FOLDER, DIAGNOSIS_NAME),
    ]


def main(config: ReportConfig) -> None:
    write_report(config.run, config.manifest, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    try:
        main(tyro.cli(ReportConfig))
    except (ManifestError, CheckpointError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
