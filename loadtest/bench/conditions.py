"""Under which conditions the engine and the server were compared: cores, software, models, settings."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import onnx

from contract.repository import file_sha256, model_config_path, read_model_config
from contract.spec import CPU_ENGINE
from loadtest.faces import Pictures
from loadtest.hardware import describe_hardware, server_versions

PACKAGES = (CPU_ENGINE, "tritonclient", "grpcio", "numpy")


def conditions(models: Mapping[str, Path], repository: Path, pictures: Pictures, *, seconds: float) -> dict[str, str]:
    """Return what must be the same for two runs to be compared. Raises OSError for a model that is not there."""
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
    """Return its size, SHA-256 and, from the metadata that the export writes, the network's resolution."""
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    resolution = metadata.get("resolution", "unknown")
    return f"network resolution {resolution}, {path.stat().st_size / 1e6:.1f} MB, sha256 {file_sha256(path)}"


def cpu_parameters(repository: Path) -> dict[str, str]:
    """Return the parameters of the CPU runtime in configs/cpu.pbtxt."""
    config = read_model_config(model_config_path(repository, cpu=True))
    return {name: config.parameters[name].string_value for name in sorted(config.parameters)}
