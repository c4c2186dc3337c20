"""Evaluate a served model on labelled faces, over gRPC or HTTP.

python -m clients.evaluate --url grpc://127.0.0.1:8001 --manifest data/ffhq/manifest.csv --out runs/served.csv
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from clients.base import DEFAULT_IN_FLIGHT
from clients.client import FaceAttributesClient
from clients.errors import FaceAttributesError
from contract.files import replacing
from contract.metrics import Report, evaluate_stream
from contract.samples import ManifestError, Protocol, Role, Samples, load_samples
from contract.spec import Images, Predictions


@dataclass(frozen=True)
class Config:
    """Evaluate a served model on labelled faces."""

    url: str  # grpc://host:port or http://host:port (grpcs and https for TLS)
    manifest: Path  # manifest.csv of a dataset folder
    role: Role = "test"  # which faces of the protocol
    protocol: Protocol = "holdout"  # `published` scores training faces too, as the published table did
    batch_size: int = 4  # small requests that the server batches keep it busier than few large ones
    in_flight: int = DEFAULT_IN_FLIGHT  # enough to hide the network; the server's queue holds the rest
    timeout_s: float = 60.0  # of one request, queueing behind all others in flight included
    out: Path | None = None  # the report as CSV


def evaluate_served(
    client: FaceAttributesClient, samples: Samples, *, batch_size: int, in_flight: int = DEFAULT_IN_FLIGHT
) -> Report:
    """Score the served model over the samples, `in_flight` requests at a time."""

    def predict_stream(batches: Iterable[Images]) -> Iterator[Predictions]:
        with tqdm(total=len(samples), unit="face", desc=repr(client)) as progress:
            for predictions in client.infer_stream(batches, in_flight=in_flight):
                progress.update(len(predictions))
                yield predictions

    return evaluate_stream(predict_stream, samples, batch_size=batch_size)


def main(config: Config) -> None:
    samples = load_samples(config.manifest, config.role, config.protocol)
    with FaceAttributesClient(config.url, timeout_s=config.timeout_s) as client:
        report = evaluate_served(client, samples, batch_size=config.batch_size, in_flight=config.in_flight)
    print(report.to_markdown())
    if config.out:
        with replacing(config.out) as temporary:
            report.to_frame().to_csv(temporary, index=False)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except (FaceAttributesError, ManifestError) as error:
        sys.exit(f"error: {error}")
