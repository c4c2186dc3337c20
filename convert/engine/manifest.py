"""What an engine was built from and for, written beside it: `model.plan.json`.

A plan is bound to TensorRT's version and the GPU; whoever loads it compares this file first, because TensorRT's own
refusal names neither.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contract.files import replacing
from contract.program import UserError
from convert.engine.options import Profile


class GpuError(UserError, RuntimeError):
    """The GPU cannot be asked what it is."""


class EngineManifestError(UserError, ValueError):
    """An engine's manifest is missing or broken; the message says how to make it."""


@dataclass(frozen=True)
class Gpu:
    name: str
    compute_capability: str  # as NVIDIA writes it: 8.6


@dataclass(frozen=True)
class EngineManifest:
    tensorrt_version: str
    gpu_name: str
    compute_capability: str
    onnx_sha256: str
    profile: Profile
    precision: str
    layer_precisions: dict[str, int]
    convolution_precisions: dict[str, int]
    hardware_compatibility: str
    version_compatible: bool
    built_at: str  # ISO 8601, UTC


def manifest_path(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.json")


def write_manifest(manifest: EngineManifest, plan: Path) -> Path:
    path = manifest_path(plan)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return path


def read_manifest(plan: Path) -> EngineManifest:
    """Raises EngineManifestError."""
    path = manifest_path(plan)
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        return EngineManifest(**values | {"profile": Profile(**values["profile"])})
    except FileNotFoundError:
        raise EngineManifestError(f"{path} does not exist; build the engine again with make engine") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise EngineManifestError(
            f"{path} is not an engine's manifest ({error}); build it again with make engine"
        ) from (error)


def current_gpu(environment: Mapping[str, str] = os.environ) -> Gpu:
    """The GPU that CUDA takes first, according to nvidia-smi, which every driver brings. Raises GpuError.

    CUDA counts by speed and nvidia-smi by bus unless CUDA_DEVICE_ORDER is PCI_BUS_ID.
    """
    device = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    command = ["nvidia-smi", f"--id={device}", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        raise GpuError(
            "nvidia-smi is not installed: an engine is built where an NVIDIA GPU and its driver are"
        ) from None
    except subprocess.CalledProcessError as error:
        raise GpuError(f"nvidia-smi finds no GPU {device}: {(error.stderr or error.stdout).strip()}") from error
    return parse_gpu(answer.stdout)


def parse_gpu(line: str) -> Gpu:
    """nvidia-smi's "name, capability" as a Gpu. Raises GpuError."""
    name, comma, capability = line.strip().rpartition(", ")
    if not comma:
        raise GpuError(f"nvidia-smi answered {line!r} where a name and a compute capability were expected")
    return Gpu(name, capability)
