"""What every peer is started with: environment variables, since most frameworks import a peer's module in each worker.

Each peer's own file gives the settings that served fastest; a variable such as PEER_WORKERS=1 tries another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import onnxruntime

from contract.spec import IMAGE, OUTPUTS, Float32, Images

PREFIX = "PEER_"
CORES = len(os.sched_getaffinity(0))
OUTPUT_NAMES = [tensor.name for tensor in OUTPUTS]


@dataclass(frozen=True)
class Settings:
    """How a peer shares the cores out; those that a framework has no use for stay as they are."""

    workers: int  # processes that each hold the model
    concurrency: int  # calls of the model at a time in each worker
    threads: int  # of one call
    max_batch_size: int = 1
    batch_wait_ms: float = 0.0

    def or_environment(self) -> Settings:
        """Return the same, replaced where the environment says so."""
        given = {field.name: os.environ.get(PREFIX + field.name.upper()) for field in fields(self)}
        return replace(
            self, **{name: type(getattr(self, name))(value) for name, value in given.items() if value is not None}
        )


def model() -> Path:
    """Return the weights: an ONNX file, or for PyTorch one of torch.export."""
    return Path(os.environ[PREFIX + "MODEL"])


def port() -> int:
    """Return where to listen for HTTP on the loopback interface."""
    return int(os.environ[PREFIX + "PORT"])


def grpc_port() -> int:
    return int(os.environ[PREFIX + "GRPC_PORT"])


def open_session(threads: int) -> onnxruntime.InferenceSession:
    """Open ONNX Runtime's session of the model; any number of threads may call it at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # graph optimisations are all on by default, and its branches are short
    return onnxruntime.InferenceSession(model(), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, images: Images) -> tuple[Float32, Float32, Float32]:
    """Infer uint8 [N, 128, 128, 3] -> age [N, 1] in years, gender [N, 1] and emotion [N, 8] as probabilities."""
    age, gender, emotion = session.run(OUTPUT_NAMES, {IMAGE.name: images})
    return age, gender, emotion


def face(body: bytes) -> Images:
    """Read the raw body of a request as the canonical image, uint8 [128, 128, 3]."""
    return np.frombuffer(body, np.uint8).reshape(IMAGE.dims)
