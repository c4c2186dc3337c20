"""Serve a model repository on this machine until Ctrl-C, or while a command runs.

python -m serving.run --repository model_repository --http-port 8000 --grpc-port 8001
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from contract import program
from contract.repository import copy_with_model
from serving.errors import SetupError, StartError
from serving.server import ServerOptions, TritonServer, wait_for


@dataclass(frozen=True)
class RunConfig:
    """Start the Triton server, wait until every model answers, and serve until Ctrl-C."""

    repository: Path = Path("model_repository")
    model: Path | None = None  # an ONNX model to serve in place of the repository's own
    then: str | None = None  # a shell command to run against it, with GRPC_URL, HTTP_URL, METRICS_URL; then stop
    server: tyro.conf.OmitArgPrefixes[ServerOptions] = field(default_factory=ServerOptions)


def main(config: RunConfig) -> int:
    """Serve; return the exit status, that of `then`. Raises StartError for a server that ends by itself."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ask for the same
    started = time.perf_counter()
    with served_repository(config) as repository, TritonServer(repository, config.server) as server:
        print(
            f"ready after {time.perf_counter() - started:.1f} s, log in {config.server.log}\n"
            f"  gRPC     {server.grpc_url}\n  HTTP     {server.http_url}\n  metrics  {server.metrics_url}",
            flush=True,
        )
        if config.then is not None:
            return run_command(config.then, server)
        try:
            print("Ctrl-C stops it", flush=True)
            status = server.wait()
        except KeyboardInterrupt:
            return 0
    raise StartError(f"the server ended by itself with status {status}; its log is {config.server.log}")


@contextmanager
def served_repository(config: RunConfig) -> Iterator[Path]:
    """Yield the repository, or a copy of it with `model` in it for as long as it is served. Raises SetupError."""
    if config.model is None:
        yield config.repository
        return
    with TemporaryDirectory(prefix="agegendernet-") as folder:
        try:
            copied = copy_with_model(config.repository, Path(folder, "model_repository"), config.model)
        except OSError as error:
            raise SetupError(f"{config.model} cannot be served: {error.strerror}: {error.filename}") from error
        print(f"serving {config.model}")
        yield copied


def run_command(command: str, server: TritonServer) -> int:
    """Run a shell command with the server's addresses in its environment; its status as a shell gives it."""
    urls = {"GRPC_URL": server.grpc_url, "HTTP_URL": server.http_url, "METRICS_URL": server.metrics_url}
    # A group of its own, so that an interruption reaches what the shell has started too, once.
    process = subprocess.Popen(command, shell=True, env={**os.environ, **urls}, process_group=0)
    try:
        status = wait_for(process)
    except KeyboardInterrupt:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(RunConfig)))
