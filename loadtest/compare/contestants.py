"""Who is compared: our server and its peers, each with one file of weights, and the settings of a comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from contract.repository import copy_with_model
from loadtest.compare.endpoints import Endpoint, TritonEndpoint, TritonHttpEndpoint
from loadtest.compare.peer_server import DEFAULT_VENV, PEERS, PeerServer
from serving.launch import PROJECT
from serving.server import ANY_PORTS, TritonServer

Precision = Literal["FP32", "INT8"]
OURS = "agegendernet"


@dataclass(frozen=True)
class CompareConfig:
    """Serve the same weights with each server and measure them in interleaved rounds."""

    fp32: Path  # ONNX model, for ours and for ONNX Runtime
    pytorch: Path  # the same weights for PyTorch, by convert.export_torch
    int8: Path | None = None  # quantized for OpenVINO; without it FP32 alone is compared
    int8_onnxruntime: Path | None = None  # quantized for ONNX Runtime, which gets the faster one of the two
    out: Path = Path("runs/compare")
    faces: str = ""  # manifest.csv or folder of the faces that are sent; synthetic ones without
    repository: Path = PROJECT / "model_repository"  # whose copies are served
    rounds: int = 3  # a median of fewer is no median
    in_flight: tuple[int, ...] = (1, 16)
    seconds: float = 2.5  # of each measurement; a run of three rounds then takes less than nine minutes
    warm_up_s: float = 1.0  # adaptive batching learns in it
    only: tuple[str, ...] = ()  # names of servers, such as 'FastAPI + ONNX Runtime'; ours is measured always
    venv: Path = DEFAULT_VENV  # of the peers


@dataclass(frozen=True)
class Contestant:
    """One server with one file of weights."""

    server: str
    precision: Precision
    model: Path

    @contextmanager
    def running(self, config: CompareConfig) -> Iterator[list[Endpoint]]:
        """Start it and yield where it can be asked, once it is at rest. Raises PeerError or ServingError."""
        log = config.out / "logs" / f"{self.server.replace(' + ', '_').lower()}_{self.precision.lower()}.log"
        if self.server != OURS:
            with PeerServer(PEERS[self.server], self.model, log, config.venv) as peer:
                yield [peer.endpoint]
            return
        with tempfile.TemporaryDirectory() as folder:
            repository = copy_with_model(config.repository, Path(folder, "model_repository"), self.model)
            with TritonServer(repository, replace(ANY_PORTS, log=log)) as server:
                yield [TritonEndpoint(server.grpc_url), TritonHttpEndpoint(server.http_url)]


def contestants_of(config: CompareConfig, int8_onnxruntime: Path | None) -> list[Contestant]:
    """List ours first; each precision together. `int8_onnxruntime` is the file that ONNX Runtime computes faster."""
    peers = [peer for peer in PEERS.values() if not config.only or peer.name in config.only]
    found = [Contestant(OURS, "FP32", config.fp32)]
    found += [Contestant(p.name, "FP32", config.fp32 if p.suffix == ".onnx" else config.pytorch) for p in peers]
    if config.int8:
        found.append(Contestant(OURS, "INT8", config.int8))
    if int8_onnxruntime:
        found += [Contestant(peer.name, "INT8", int8_onnxruntime) for peer in peers if peer.suffix == ".onnx"]
    return found
