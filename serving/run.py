"""Serve a model repository on this machine until Ctrl-C, or while a command runs.

python -m serving.run --repository model_repository --http-port 8000 --grpc-port 8001
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from contract import program
from contract.headers import local_headers_path
from contract.repository import copy_with_model
from serving.errors import SetupError, StartError
from serving.server import ServerOptions, TritonServer, wait_for
from serving.supervision.guard import LOOK_EVERY_S
from serving.supervision.leftovers import temporary_folder
from serving.supervision.log import reason_in

PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)  # before each start again; after the last of them it gives up
WELL_AFTER_S = 60.0  # a server that lasted so long begins with the first pause again


@dataclass(frozen=True)
class RunConfig:
    """Start the Triton server, wait until every model answers, and serve until Ctrl-C."""

    repository: Path = Path("model_repository")
    model: Path | None = None  # an ONNX model to serve in place of the repository's own
    then: str | None = None  # a shell command to run against it, with GRPC_URL, HTTP_URL, METRICS_URL; then stop
    server: tyro.conf.OmitArgPrefixes[ServerOptions] = field(default_factory=ServerOptions)


def main(config: RunConfig) -> int:
    """Serve; return the exit status, that of `then`. Raises StartError for a server that cannot be kept running."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ask for the same
    started = time.perf_counter()
    with served_repository(config) as repository, TritonServer(repository, config.server) as server:
        print(
            f"ready after {time.perf_counter() - started:.1f} s, log in {config.server.log}\n"
            f"  gRPC     {server.grpc_url}\n  HTTP     {server.http_url}\n  metrics  {server.metrics_url}\n"
            f"  key      {_key_line(server)}",
            flush=True,
        )
        if config.then is not None:
            return run_command(config.then, server)
        try:
            print("Ctrl-C stops it", flush=True)
            keep_running(server)
        except KeyboardInterrupt:
            pass
    return 0


def _key_line(server: TritonServer) -> str:
    if server.options.open:
        return "none. WARNING: every program here, and every web page in a browser here, can use and stop this server"
    return f"{local_headers_path(int(server.http_url.rpartition(':')[2]))}, where our programs of this user find it"


def keep_running(server: TritonServer) -> None:
    """Start the server again whenever it ends or does not answer, after growing pauses. Raises StartError at last."""
    failures = 0
    while True:
        began = time.monotonic()
        fault = _first_fault(server)
        failures = 1 if time.monotonic() - began > WELL_AFTER_S else failures + 1
        while not _started_again(server, fault, failures):
            failures += 1


def _first_fault(server: TritonServer) -> str:
    guard = server.guard()
    try:
        while (fault := guard.fault()) is None:
            server.tidy()
            time.sleep(LOOK_EVERY_S)
        return fault
    finally:
        guard.close()


def _started_again(server: TritonServer, fault: str, failures: int) -> bool:
    if failures > len(PAUSES_S):
        raise StartError(
            f"{fault}; given up after {failures - 1} starts in a row that did not last: {reason_in(server.options.log)}"
        )
    pause_s = PAUSES_S[failures - 1]
    print(f"{fault}; starting it again" + (f" in {pause_s:.0f} s" if pause_s else ""), file=sys.stderr, flush=True)
    server.kill()
    time.sleep(pause_s)
    try:
        server.start()
    except StartError as error:
        print(error, file=sys.stderr, flush=True)
        return False
    print("ready again", file=sys.stderr, flush=True)
    return True


@contextmanager
def served_repository(config: RunConfig) -> Iterator[Path]:
    """Yield the repository, or a copy of it with `model` in it for as long as it is served. Raises SetupError."""
    if config.model is None:
        yield config.repository
        return
    folder = temporary_folder("model")
    try:
        try:
            copied = copy_with_model(config.repository, folder / "model_repository", config.model)
        except OSError as error:
            raise SetupError(f"{config.model} cannot be served: {error.strerror}: {error.filename}") from error
        print(f"serving {config.model}")
        yield copied
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
