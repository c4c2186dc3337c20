"""A peer as a running server: what people would write instead of ours, started from .venv-peers.

with PeerServer(PEERS["FastAPI + ONNX Runtime"], Path("model.onnx"), log=Path("peer.log")) as server:
    server.endpoint.predict(faces)

Nothing of the peers is imported here: they need packages that this environment lacks.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import psutil

from contract.program import UserError
from contract.spec import IMAGE
from loadtest.compare.endpoints import Endpoint, JsonEndpoint, TritonEndpoint
from loadtest.processes import family, processor_time_s
from serving.launch import LOOPBACK, PROJECT, Ports

DEFAULT_VENV = PROJECT / ".venv-peers"
SETTLED_CORES = 0.5  # below it a server that nobody asks has started; LitServe goes on to look for requests
SETTLING_S = 0.5  # over which that is measured
POLL_S = 0.1
LOG_LINES = 15  # of a peer that failed: enough for the end of a traceback


class PeerError(UserError, RuntimeError):
    """A peer is not installed, did not start, or answers wrongly; the message says why, with the end of its log."""


@dataclass(frozen=True)
class Peer:
    """What people would write instead; its own file says how it was tuned."""

    name: str
    module: str  # in loadtest.compare.peers
    suffix: str = ".onnx"  # of the weights that it loads
    speaks_triton: bool = False  # gRPC tensors, instead of raw bytes in and JSON out over HTTP
    command: Callable[[str, Ports], tuple[str, ...]] = lambda module, _: ("python", "-m", module)

    @property
    def path(self) -> Path:
        return PROJECT / "loadtest" / "compare" / "peers" / f"{self.module}.py"


def bentoml_command(module: str, ports: Ports) -> tuple[str, ...]:
    """Return the command with which BentoML itself starts a service."""
    service = os.environ.get("PEER_SERVICE", "FaceAttributes")
    return ("bentoml", "serve", f"{module}:{service}", "--host", LOOPBACK, "--port", str(ports.http))


PEERS = {
    peer.name: peer
    for peer in (
        Peer("FastAPI + PyTorch", "fastapi_pytorch", suffix=".pt2"),
        Peer("FastAPI + ONNX Runtime", "fastapi_onnxruntime"),
        Peer("LitServe + ONNX Runtime", "litserve_onnxruntime"),
        Peer("BentoML + ONNX Runtime", "bentoml_onnxruntime", command=bentoml_command),
        Peer("PyTriton + ONNX Runtime", "pytriton_onnxruntime", speaks_triton=True),
    )
}


@dataclass
class PeerServer:
    """Started and settled on entering, stopped with all its processes on leaving. Raises PeerError."""

    peer: Peer
    model: Path
    log: Path
    venv: Path = DEFAULT_VENV
    settings: Mapping[str, str] = field(default_factory=dict)  # in place of those in the peer's file: workers=1, ...
    start_timeout_s: float = 180.0  # PyTorch compiles the network first
    stop_timeout_s: float = 3.0  # nothing is in flight by then

    def __enter__(self) -> Self:
        ports = Ports().chosen()
        self.endpoint = self._endpoint(ports)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = psutil.Popen(
                self.arguments(ports),
                env=self.environment(ports),
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is ours to handle
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def arguments(self, ports: Ports) -> list[str]:
        """Return its command line. Raises PeerError where the environment lacks the program."""
        program, *rest = self.peer.command(f"loadtest.compare.peers.{self.peer.module}", ports)
        path = self.venv.absolute() / "bin" / program
        if not path.exists():
            raise PeerError(f"{path} does not exist; install the peers with make .venv-peers/installed")
        return [str(path), *rest]

    def environment(self, ports: Ports) -> dict[str, str]:
        """Return our variables, and what loadtest.compare.peers.settings reads."""
        given = {"model": str(self.model.absolute()), "port": str(ports.http), "grpc_port": str(ports.grpc)}
        path = os.pathsep.join([str(self.venv.absolute() / "bin"), os.environ.get("PATH", os.defpath)])
        return {
            **os.environ,
            **{f"PEER_{name.upper()}": value for name, value in (given | dict(self.settings)).items()},
            "PATH": path,
            "BENTOML_DO_NOT_TRACK": "True",
        }

    def idle_cores(self) -> float:
        """Measure how many cores all its processes together take while nobody asks."""
        before, started_s = processor_time_s(self._process), time.perf_counter()
        time.sleep(SETTLING_S)
        return (processor_time_s(self._process) - before) / (time.perf_counter() - started_s)

    def stop(self) -> None:
        """End every process of it, at first politely; some peers put their workers into sessions of their own."""
        processes = family(self._process)
        with suppress(psutil.NoSuchProcess):
            self._process.terminate()
        _, alive = psutil.wait_procs(processes, self.stop_timeout_s)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, self.stop_timeout_s)

    def _endpoint(self, ports: Ports) -> Endpoint:
        return TritonEndpoint(ports.grpc_url) if self.peer.speaks_triton else JsonEndpoint(f"{ports.http_url}/predict")

    def _wait_until_ready(self) -> None:
        """Until it answers and all its processes are at rest: its other workers may be starting still."""
        deadline = time.monotonic() + self.start_timeout_s
        while not self._answers() or self.idle_cores() > SETTLED_CORES:
            if self._process.poll() is not None:
                raise self._failure(f"ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer and come to rest within {self.start_timeout_s:.0f} s")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            self.endpoint.predict(np.zeros((1, *IMAGE.dims), np.uint8))
        except ConnectionError:  # nothing listens yet
            return False
        except Exception as error:
            raise self._failure(f"answers with {type(error).__name__}: {error}") from error
        return True

    def _failure(self, what: str) -> PeerError:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return PeerError("\n".join([f"{self.peer.name} {what}; the end of {self.log}:", *lines]))
