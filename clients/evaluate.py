"""Evaluate a served model on labelled faces, over gRPC or HTTP; a restart of the server on the way is waited for.

python -m clients.evaluate --url grpc://127.0.0.1:8001 --manifest data/ffhq/manifest.csv --out runs/served.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from tqdm import tqdm

from clients.client import DEFAULT_IN_FLIGHT, FaceAttributesClient
from clients.command_line import ServerConnection, one_line_for
from clients.errors import FaceAttributesError, InvalidInput
from contract.samples import ManifestError, Protocol, Role, Samples, load_samples
from contract.spec import Predictions
from evaluation.diagnosis.text import write_numbers
from evaluation.metrics import Report, score

# A request queues behind all others in flight; a server's restart takes seconds, loading an engine a minute.
PATIENT = ServerConnection(timeout_s=60.0, retry_for_s=120.0)


@dataclass(frozen=True)
class Config:
    """Evaluate a served model on labelled faces."""

    manifest: Path  # manifest.csv of a dataset folder
    server: tyro.conf.OmitArgPrefixes[ServerConnection] = field(default_factory=lambda: PATIENT)
    role: Role = "test"  # which faces of the protocol
    protocol: Protocol = "holdout"  # `published` scores training faces too, as the published table did
    batch_size: int = 4  # faces a request; many small ones let the server choose its batches
    in_flight: int = DEFAULT_IN_FLIGHT  # requests; enough to hide the network, the server's queue holds the rest
    out: Path | None = None  # the report as CSV
    diagnosis: Path | None = None  # a folder for calibration, subgroups, ... in numbers


def evaluate_served(
    client: FaceAttributesClient, samples: Samples, *, batch_size: int = 4, in_flight: int = DEFAULT_IN_FLIGHT
) -> Report:
    """Score the served model over the samples, `in_flight` requests at a time."""
    return score(predict_all(client, samples, batch_size=batch_size, in_flight=in_flight), samples.labels)


def predict_all(
    client: FaceAttributesClient, samples: Samples, *, batch_size: int = 4, in_flight: int = DEFAULT_IN_FLIGHT
) -> Predictions:
    """What the served model says of every sample, in order, with a progress bar."""
    with tqdm(total=len(samples), unit="face", desc=client.url) as progress:

        def predictions() -> Iterator[Predictions]:
            for answers in client.infer_stream(samples.image_batches(batch_size), in_flight=in_flight):
                progress.update(len(answers))
                yield answers

        return Predictions.concatenate(predictions())


@one_line_for(FaceAttributesError, ManifestError)
def main(config: Config) -> int:
    if config.batch_size < 1:
        raise InvalidInput(f"--batch-size must be 1 or more, got {config.batch_size}")
    samples = load_samples(config.manifest, config.role, config.protocol)
    with FaceAttributesClient(config.server.url, **config.server.options()) as client:
        answers = predict_all(client, samples, batch_size=config.batch_size, in_flight=config.in_flight)
    report = score(answers, samples.labels)
    print(report.to_markdown())
    if config.out:
        report.write_csv(config.out)
    if config.diagnosis:
        title = f"Diagnosis of {config.server.url}, {config.role} faces, protocol {config.protocol}"
        write_numbers(answers, samples, config.diagnosis, title=title)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
