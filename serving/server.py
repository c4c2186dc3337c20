"""A real Triton server on this machine, as a context manager.

with TritonServer(Path("model_repository")) as server:
    print(server.grpc_url)
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.spec import MODEL_NAME
from serving.errors import SetupError, StartError
from serving.installation import DEFAULT_VENV, find_installation
from serving.readiness import is_ready, warm_up

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ServerOptions:
    """How the server is started. A port of 0 stands for any free one."""

    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    log: Path = Path("runs/serve/triton.log")
    verbose: bool = False
    explicit_models: bool = False  # load and unload models by request only, as promotion does
    venv: Path = DEFAULT_VENV
    start_timeout_s: float = 60.0  # a quiet machine needs 4
    stop_timeout_s: float = 10.0  # for requests in flight, before they are broken off


ANY_PORTS = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)


class TritonServer:
    """Started and warmed up on entering, stopped with all its processes on leaving.

    Raises SetupError or StartError, each one line. Enter it from a thread that outlives the server: where the system
    has setpriv, the server ends when that thread does, even by kill -9.
    """

    def __init__(self, repository: Path, options: ServerOptions = ANY_PORTS) -> None:
        self.repository = repository
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    @property
    def http_url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports['http']}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://{LOOPBACK}:{self._ports['grpc']}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports['metrics']}/metrics"

    @property
    def pid(self) -> int:
        """Process id of the running server; its children belong to the process group of the same number."""
        return self._running().pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until every model has answered."""
        _check_repository(self.repository)
        installation = find_installation(self.options.venv)
        self._ports = _choose_ports(self.options)
        self.options.log.parent.mkdir(parents=True, exist_ok=True)
        with self.options.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_ending_with_its_parent(), str(installation.binary), *self._arguments(installation.backends)],
                env=installation.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is ours to handle, and stragglers can be ended together
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> int:
        """Block until the server ends by itself; its exit status."""
        return self._running().wait()

    def stop(self) -> None:
        """Let requests in flight finish, then end every process of the server; stopping twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.options.stop_timeout_s + 5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a backend process that outlived the server
        process.wait()

    def kill(self) -> None:
        """End it as a crash would, with kill -9."""
        process, self._process = self._running(), None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StartError("the server is not running; start it first")
        return self._process

    def _arguments(self, backends: Path) -> list[str]:
        options = self.options
        arguments = {
            "model-repository": self.repository,
            "model-config-name": "cpu",
            "backend-directory": backends,
            "exit-timeout-secs": round(options.stop_timeout_s),
            "log-verbose": int(options.verbose),
        }
        for protocol, port in self._ports.items():
            arguments |= {f"{protocol}-address": LOOPBACK, f"{protocol}-port": port}
        listed = [f"--{name}={value}" for name, value in arguments.items()]
        if options.explicit_models:
            models = sorted(path.parent.name for path in self.repository.glob("*/config.pbtxt"))
            listed += ["--model-control-mode=explicit", *(f"--load-model={name}" for name in models)]
        return listed

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.options.start_timeout_s
        while not is_ready(self.grpc_url):
            if (status := self._running().poll()) is not None:
                raise StartError(f"the server ended with status {status}: {_reason(self.options.log)}")
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {self.options.start_timeout_s:.0f} s: {_reason(self.options.log)}")
            time.sleep(0.05)
        warm_up(self.grpc_url)


def _check_repository(repository: Path) -> None:
    if not (repository / MODEL_NAME / "config.pbtxt").exists():
        raise SetupError(f"{repository} is no model repository: it has no {MODEL_NAME}/config.pbtxt")
    if not list((repository / MODEL_NAME).glob("[0-9]*/model.onnx")):
        raise SetupError(f"{repository / MODEL_NAME} has no version with a model.onnx; make one with make export")


def _choose_ports(options: ServerOptions) -> dict[str, int]:
    """The wanted ports, all seen free at one moment. Raises SetupError naming the option of one that is taken."""
    wanted = {"http": options.http_port, "grpc": options.grpc_port, "metrics": options.metrics_port}
    held: dict[str, socket.socket] = {}
    try:
        for protocol, port in wanted.items():
            held[protocol] = socket.socket()
            held[protocol].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                held[protocol].bind((LOOPBACK, port))
            except OSError:
                raise SetupError(
                    f"port {port} is in use; stop what listens there or choose another with --{protocol}-port"
                ) from None
        return {protocol: sock.getsockname()[1] for protocol, sock in held.items()}
    finally:
        for sock in held.values():
            sock.close()


def _ending_with_its_parent() -> list[str]:
    """A prefix of the command, where util-linux is installed: without, a kill -9 of ours leaves the server behind."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


def _reason(log: Path) -> str:
    """The server's own words: its error lines, or the last line where it had none."""
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.partition("] ")[2].strip(' "') for line in lines if line.startswith("E")]
    return "; ".join(errors) or (lines[-1] if lines else "it said nothing") + f" (all of it: {log})"
