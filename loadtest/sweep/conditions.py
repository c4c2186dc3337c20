"""What all rows of a sweep have in common: rows measured under other conditions cannot be compared with them."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

import loadtest.generator
from contract.repository import file_sha256
from contract.spec import MODEL_NAME
from loadtest.hardware import describe_hardware, server_versions
from loadtest.sweep.config import fingerprint
from loadtest.sweep.grid import SweepConfig
from serving import docker

CLIENT_PACKAGES = ("tritonclient", "grpcio", "numpy")
GENERATOR = ("process.py", "connections.py")  # what a request costs them is taken from the server's cores


def conditions_of(config: SweepConfig, model_config: ModelConfig, faces: str) -> dict[str, str]:
    """Return machine, software, load, and of the model all that is not swept; its file is in each row instead."""
    return {
        "hardware": describe_hardware(),
        "server": docker.image("server") if config.docker else server_versions(),
        "client software": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{name} {version(name)}" for name in CLIENT_PACKAGES),
                *(_digest(Path(loadtest.generator.__file__).with_name(name)) for name in GENERATOR),
            ]
        ),
        "load": (
            f"closed loop, gRPC tensor, {faces}, {config.seconds:g} s after {config.warm_up_s:g} s of warm-up, "
            "generator beside the server"
        ),
        "model": ", ".join(
            [MODEL_NAME, *_sources(config), f"{config.config_path.name} {fingerprint(model_config)[:12]}"]
        ),
    }


def _sources(config: SweepConfig) -> list[str]:
    """The program that computes on the CPU, by its content."""
    program = config.own_version / "model.py"
    if config.docker or not program.exists():
        return []
    return [_digest(program)]


def _digest(path: Path) -> str:
    return f"{path.name} {file_sha256(path)[:12]}"
