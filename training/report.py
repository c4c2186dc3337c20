"""The published report, made by us: a run's history, its evaluation by age group and what follows from the numbers.

    python -m training.report --run runs/train --manifest data/synthetic/manifest.csv

A dataset of several gets a section and files of its own, named after its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from contract import program
from contract.files import replacing
from contract.samples import Protocol, load_samples, read_manifest
from evaluation.diagnosis.written import DIAGNOSIS_NAME, Drawn, write_diagnosis
from evaluation.metrics import Report
from evaluation.plots import plot_age_groups
from evaluation.run import Evaluated, batchwise, dataset_names, evaluate
from training import report_sections as sections
from training.evaluate import best_device, predictor
from training.loop.history import read_history
from training.loop.plots import plot_history
from training.network.checkpoint import BEST_NAME, Checkpoint, load_checkpoint

REPORT_NAME = "result_training.md"
DIAGNOSIS_FOLDER = "diagnosis"  # in the run's folder


@dataclass(frozen=True)
class ReportConfig:
    """Write result_training.md and its pictures into the folder of a run."""

    run: Path
    manifest: tuple[Path, ...]


@dataclass(frozen=True)
class Dataset:
    """One dataset's evaluation under each protocol that it has."""

    by_protocol: dict[Protocol, Evaluated]
    headline: Protocol  # the one that pictures and diagnosis are of
    picture: str | None  # by age group; a dataset without ages has none

    @property
    def shown(self) -> Evaluated:
        """Return the evaluation under the headline protocol."""
        return self.by_protocol[self.headline]


def write_report(run: Path, manifests: Sequence[Path], *, device: torch.device) -> Path:
    """Evaluate the run's best checkpoint on each dataset and write pictures, tables (CSV) and Markdown."""
    checkpoint = load_checkpoint(run / BEST_NAME)
    headline = _headline(checkpoint)
    datasets: dict[str, Dataset] = {}
    for name, manifest in zip(dataset_names(manifests), manifests, strict=True):
        prefix = f"metrics_{name}" if len(manifests) > 1 else "metrics"
        datasets[name] = _evaluate(checkpoint, manifest, run, prefix, headline, device)
    plot_history(run, "final")
    drawn = write_diagnosis(
        {name: (found.shown.predictions, found.shown.samples) for name, found in datasets.items()},
        run / DIAGNOSIS_FOLDER,
        title=f"Diagnosis of {run / BEST_NAME}, test faces, protocol {headline}",
    )
    with replacing(run / REPORT_NAME) as temporary:
        temporary.write_text(_markdown(checkpoint, run, datasets, drawn, headline), encoding="utf-8")
    for name, found in datasets.items():
        print(f"{name}\n\n{found.shown.report.to_markdown()}\n")
    print(f"wrote {run / REPORT_NAME}")
    return run / REPORT_NAME


def _headline(checkpoint: Checkpoint) -> Protocol:
    """Return the protocol to report: a run that selected on the holdout faces has no clean test, as the published."""
    return "published" if checkpoint.config.get("protocol") == "published" else "holdout"


def _protocols(manifest: Path, headline: Protocol) -> tuple[Protocol, ...]:
    """Return the protocols of a dataset: `published` too where it is split as FFHQ, with faces of age 0 set aside."""
    if headline == "published" or (read_manifest(manifest)["split"] == "age_zero").any():
        return ("holdout", "published")
    return ("holdout",)


def _evaluate(
    checkpoint: Checkpoint, manifest: Path, run: Path, prefix: str, headline: Protocol, device: torch.device
) -> Dataset:
    predict = batchwise(predictor(checkpoint, device))
    found: dict[Protocol, Evaluated] = {}
    for protocol in _protocols(manifest, headline):
        found[protocol] = evaluate(predict, load_samples(manifest, "test", protocol), batch_size=64, name=prefix)
        found[protocol].report.write_csv(run / f"{prefix}_{protocol}.csv")
    report = found[headline].report
    picture = plot_age_groups(report, run / f"{prefix}_by_age_group.png", title=_picture_title(headline, report))
    return Dataset(found, headline, picture.name if picture else None)


def _picture_title(protocol: Protocol, report: Report) -> str:
    contaminated = ", training images included" if protocol == "published" else ""
    return f"{report.overall.samples:,} faces, protocol {protocol}{contaminated}; bars: bootstrap 95 % intervals"


def _markdown(
    checkpoint: Checkpoint, run: Path, datasets: Mapping[str, Dataset], drawn: Mapping[str, Drawn], headline: Protocol
) -> str:
    parts = ["# Training result"]
    if len(datasets) == 1:
        [(name, found)] = datasets.items()
        parts += _dataset(found, drawn[name])
    else:
        parts.append(sections.overview({name: found.shown.report for name, found in datasets.items()}, headline))
        for name, found in datasets.items():
            parts += [f"## {name}", *map(sections.deeper, _dataset(found, drawn[name]))]
    parts += [
        sections.model_information(checkpoint),
        sections.configuration(checkpoint, read_history(run)),
        "![Training history](training_history_final.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _dataset(found: Dataset, drawn: Drawn) -> list[str]:
    reports = {protocol: evaluated.report for protocol, evaluated in found.by_protocol.items()}
    return [
        sections.overall(found.shown.report.overall, found.headline),
        *(sections.by_age_group(protocol, report) for protocol, report in reports.items()),
        f"![Metrics by age group]({found.picture})" if found.picture else "",
        sections.published_comparison(reports["published"]) if "published" in reports else "",
        sections.key_findings(found.shown.report),
        sections.diagnosis(drawn, DIAGNOSIS_FOLDER, DIAGNOSIS_NAME),
    ]


def main(config: ReportConfig) -> None:
    write_report(config.run, config.manifest, device=best_device())


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ReportConfig)))
