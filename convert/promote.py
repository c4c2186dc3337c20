"""A new model into the repository as the next version, if it is no worse than the one it replaces; or back again.

python -m convert.promote --candidate model.onnx --manifest data/ffhq/manifest.csv --url grpc://127.0.0.1:8001
python -m convert.promote --rollback --url grpc://127.0.0.1:8001
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import tyro

from contract import program
from contract.program import UserError
from contract.repository import engine_manifest_path, file_sha256, read_engine_manifest
from contract.samples import Protocol, Role, Samples, load_samples
from contract.spec import MODEL_NAME
from convert.errors import ModelFileError
from convert.promotion.model_control import ModelControlError, OutcomeUnknownError, load_version
from convert.promotion.versions import ModelVersions, check_highest_is_served
from convert.runtimes import Runtime, load
from evaluation.agreement import Check, agree, excesses
from evaluation.limits import PROMOTION_GROUP, PROMOTION_OVERALL, Limits
from evaluation.metrics import Report
from evaluation.run import batchwise, predict_all
from evaluation.text import markdown_table


@dataclass(frozen=True)
class PromoteConfig:
    """Promote a candidate that passes the evaluation, or take the latest version back; no request fails meanwhile."""

    candidate: Path | None = None  # ONNX model
    manifest: Path | None = None  # of the faces that both are evaluated on
    plan: Path | None = None  # its engine, where the repository serves engines; evaluated too, in TensorRT
    rollback: bool = False  # serve the version before the latest again
    model: Path = Path("model_repository") / MODEL_NAME
    url: str | None = None  # grpc://host:port of a running server (--model-control-mode=explicit), to switch at once
    headers_file: Path | None = None  # lines "name: value" for a server that restricts model control
    runtime: Literal["openvino", "onnx"] = "openvino"  # what the CPU server computes with
    role: Role = "test"
    protocol: Protocol = "holdout"
    batch_size: int = 32
    overall: Limits = PROMOTION_OVERALL  # how much worse the candidate may be on all faces
    group: Limits = PROMOTION_GROUP  # and in each age group of more than 30


class RejectedError(UserError, RuntimeError):
    """The candidate is worse than the version it would replace, by more than the limits."""


@dataclass(frozen=True)
class Comparison:
    """Candidate and incumbent evaluated in the same runtime."""

    runtime: Runtime
    candidate: Report
    incumbent: Report
    checks: tuple[Check, ...]


def promote(versions: ModelVersions, config: PromoteConfig) -> str:
    """Evaluate, install, switch, and return what happened.

    Raises RejectedError, ModelControlError and others of its parts. Whatever is raised, the version served before is
    served still.
    """
    if config.candidate is None or config.manifest is None:
        raise ModelFileError("--candidate and --manifest are needed, or --rollback")
    replaced, number = versions.current(), versions.unused()
    files = version_files(config.candidate, config.plan, incumbent=versions.path(replaced))
    samples = load_samples(config.manifest, config.role, config.protocol)
    runtimes: dict[str, Runtime] = {"model.onnx": config.runtime, "model.plan": "tensorrt"}
    comparisons = [
        _evaluate(runtime, files[name], versions.path(replaced) / name, samples, config)
        for name, runtime in runtimes.items()
        if name in files
    ]
    record = _record(config, files, replaced, comparisons)
    text = _markdown(record, comparisons)
    print(text)
    if any(excesses(comparison.checks) for comparison in comparisons):
        raise RejectedError(f"the candidate is worse than version {replaced} by more than the limits; nothing changed")
    texts = {"promotion.json": json.dumps(record, indent=2) + "\n", "promotion.md": text}
    versions.install(number, files=files, texts=texts)
    try:
        return f"version {number} replaces version {replaced}; {_switch(config, number)}"
    except ModelControlError as error:
        versions.retire(number)
        _switch_back(config, error, replaced)
        raise


def roll_back(versions: ModelVersions, config: PromoteConfig) -> str:
    """Serve the version before the latest again, and return what happened. Raises VersionError or ModelControlError."""
    latest, previous = versions.current(), versions.previous()
    kept = versions.retire(latest)
    try:
        return f"version {previous} again, version {latest} is kept as {kept}; {_switch(config, previous)}"
    except ModelControlError as error:
        versions.restore(latest)
        _switch_back(config, error, latest)
        raise


def version_files(candidate: Path, plan: Path | None, *, incumbent: Path) -> dict[str, Path]:
    """Return what the new version is to hold, by name.

    Raises ModelFileError where model, engine and manifest do not fit.
    """
    if not candidate.is_file():
        raise ModelFileError(f"{candidate} does not exist; make it with python -m convert.export_onnx")
    if plan is None:
        if (incumbent / "model.plan").exists():
            raise ModelFileError(
                f"{incumbent} holds an engine, and the version after it needs one: build it with python -m "
                f"convert.build_engine --onnx {candidate}, and pass it as --plan"
            )
        return {"model.onnx": candidate}
    if not plan.is_file():
        raise ModelFileError(f"{plan} does not exist; build it with python -m convert.build_engine --onnx {candidate}")
    if read_engine_manifest(plan).onnx_sha256 != file_sha256(candidate):
        raise ModelFileError(
            f"{plan} was not built from {candidate}; build it with python -m convert.build_engine --onnx {candidate}"
        )
    return {"model.onnx": candidate, "model.plan": plan, engine_manifest_path(plan).name: engine_manifest_path(plan)}


def _evaluate(
    runtime: Runtime, candidate: Path, incumbent: Path, samples: Samples, config: PromoteConfig
) -> Comparison:
    ours, theirs = (
        predict_all(batchwise(load(model, runtime)), samples, batch_size=config.batch_size, name=f"{name} in {runtime}")
        for name, model in (("candidate", candidate), ("incumbent", incumbent))
    )
    agreement = agree(ours, theirs, samples.labels)
    checks = agreement.check(config.overall, by_group=config.group)
    return Comparison(runtime, agreement.found, agreement.reference, checks)


def checks_table(checks: Iterable[Check]) -> str:
    """Return the checks as a Markdown table, changes for the worse being positive."""
    header = ["age group", "faces", "score", "incumbent", "candidate", "worse by", "limit", ""]
    rows = (
        [
            check.group,
            f"{check.samples:,}",
            check.metric.replace("_", " "),
            *(f"{value:.4f}" for value in (check.reference, check.found)),
            f"{check.loss:+.4f}",
            f"{check.limit:g}",
            "pass" if check.passed else "**fail**",
        ]
        for check in checks
    )
    return markdown_table(header, rows)


def _switch(config: PromoteConfig, number: int) -> str:
    if config.url is None:
        return "a server serves it from its next start"
    seconds = load_version(config.url, number, headers_file=config.headers_file)
    return f"the server at {config.url} serves it after {seconds:.1f} s"


def _switch_back(config: PromoteConfig, error: ModelControlError, number: int) -> None:
    """Have the server load what the repository has again, where it may have loaded something else."""
    if not isinstance(error, OutcomeUnknownError):
        return
    try:
        _switch(config, number)
    except ModelControlError as again:
        raise ModelControlError(
            f"{error}; the repository is back at version {number}, but a server that still runs may serve another: "
            f"start it again (it could not be told: {again})"
        ) from again


def _record(
    config: PromoteConfig, files: dict[str, Path], replaced: int, comparisons: list[Comparison]
) -> dict[str, Any]:
    """Return everything that the decision rests on, for JSON."""
    return {
        "decided_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "replaces_version": replaced,
        "sha256": {name: file_sha256(path) for name, path in files.items()},
        "faces": {"manifest": str(config.manifest), "role": config.role, "protocol": config.protocol},
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }


def _markdown(record: dict[str, Any], comparisons: list[Comparison]) -> str:
    faces = record["faces"]
    parts = [f"# Candidate against version {record['replaces_version']}, {record['decided_at']}"]
    for comparison in comparisons:
        parts += [
            f"Both in {comparison.runtime} on {comparison.candidate.overall.samples:,} faces of {faces['manifest']} "
            f"({faces['role']}, protocol {faces['protocol']}).",
            checks_table(comparison.checks),
        ]
    return "\n\n".join(parts) + "\n"


def main(config: PromoteConfig) -> None:
    versions = ModelVersions(config.model)
    with versions.locked():
        check_highest_is_served(config.model)
        print(roll_back(versions, config) if config.rollback else promote(versions, config))


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(PromoteConfig)))
