"""Serve a model repository on this machine until Ctrl-C.

python -m serving.run --repository model_repository --http-port 8000 --grpc-port 8001
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import tyro

from serving.errors import ServingError
from serving.server import ServerOptions, TritonServer


@dataclass(frozen=True)
class RunConfig:
    """Start the Triton server on CPU, wait until every model answers, and serve until Ctrl-C."""

    repository: Path = Path("model_repository")
    then: str | None = None  # a shell command to run against it, with GRPC_URL, HTTP_URL, METRICS_URL; then stop
    options: tyro.conf.OmitArgPrefixes[ServerOptions] = field(default_factory=ServerOptions)


def main(config: RunConfig) -> int:
    """The exit status: that of `then`, or of a server that ended by itself."""
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.perf_counter()
    with TritonServer(config.repository, config.options) as server:
        print(f"ready after {time.perf_counter() - started:.1f} s, log in {config.options.log}", flush=True)
        print(
            f"  gRPC     {server.grpc_url}\n  HTTP     {server.http_url}\n  metrics  {server.metrics_url}", flush=True
        )
        if config.then is None:
            return server.wait()
        urls = {"GRPC_URL": server.grpc_url, "HTTP_URL": server.http_url, "METRICS_URL": server.metrics_url}
        return subprocess.run(config.then, shell=True, env={**os.environ, **urls}, check=False).returncode


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(RunConfig)))
    except ServingError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped")
