"""Under which conditions the engine and the server were compared: cores, software, models, settings."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.repository import CPU_CONFIG_NAME
from contract.spec import MODEL_NAME
from loadtest.faces import Pictures
from loadtest.hardware import describe_hardware, server_versions

PACKAGES = ("openvino", "tritonclient", "grpcio", "numpy")


def conditions(models: Mapping[str, Path], repository: Path, pictures: Pictures, *, seconds: float) -> dict[str, str]:
    """What has to be the same for two runs to be compared. Raises OSError for a model that is not there."""
    return {
        "hardware": f"{describe_hardware()}; client and server share them",
        "client software": ", ".join([f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in PACKAGES)]),
        "server software": server_versions(),
        **{f"{precision} model": describe_model(path) for precision, path in models.items()},
        "server settings": ", ".join(f"{name} {value}" for name, value in cpu_parameters(repository).items()),
        "pictures": pictures.description,
        "measured": f"interleaved rounds, {seconds:g} s with many in flight and half of it alone, medians over rounds",
    }


def describe_model(path: Path) -> str:
    """Its size, SHA-256 and, from the metadata that the export writes, the network's resolution."""
    data = path.read_bytes()
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    resolution = metadata.get("resolution", "unknown")
    return f"network resolution {resolution}, {len(data) / 1e6:.1f} MB, sha256 {hashlib.sha256(data).hexdigest()}"


def cpu_parameters(repository: Path) -> dict[str, str]:
    """The parameters of the CPU runtime in configs/cpu.pbtxt."""
    path = repository / MODEL_NAME / "configs" / f"{CPU_CONFIG_NAME}.pbtxt"
    config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    return {name: config.parameters[name].string_value for name in sorted(config.parameters)}


def to_markdown(stated: Mapping[str, str]) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in stated.items())
