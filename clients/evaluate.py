"""Evaluate a served model on labelled faces, over gRPC or HTTP; a restart of the server on the way is waited for.

python -m clients.evaluate --url grpc://127.0.0.1:8001 --manifest data/ffhq/manifest.csv --out runs/served.csv
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import tyro

from clients.client import DEFAULT_IN_FLIGHT, FaceAttributesClient
from clients.command_line import ServerConnection
from contract import program
from evaluation.run import EvaluationOptions, run

# A request queues behind all others in flight; a server's restart takes seconds, loading an engine a minute.
PATIENT = ServerConnection(timeout_s=60.0, retry_for_s=120.0)


@dataclass(frozen=True, kw_only=True)
class Config(EvaluationOptions):
    """Evaluate a served model on labelled faces."""

    server: tyro.conf.OmitArgPrefixes[ServerConnection] = field(default_factory=lambda: PATIENT)
    batch_size: int = 4  # faces a request; many small ones let the server choose its batches
    in_flight: int = DEFAULT_IN_FLIGHT  # requests; enough to hide the network, the server's queue holds the rest


def main(config: Config) -> int:
    with FaceAttributesClient(config.server.url, **config.server.options()) as client:
        run(partial(client.infer_stream, in_flight=config.in_flight), config, title=config.server.url)
    return 0


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(Config)))
