"""Under which conditions servers were compared: machine, software of both sides, load, and the very files."""

from __future__ import annotations

import platform
from importlib.metadata import distributions
from pathlib import Path

from contract.repository import file_sha256
from contract.spec import CPU_ENGINE
from loadtest.compare.contestants import OURS, CompareConfig
from loadtest.hardware import describe_hardware
from serving.installation import DEFAULT_VENV as TRITON_VENV

PACKAGES = ("torch", "onnxruntime", CPU_ENGINE, "fastapi", "uvicorn", "litserve", "bentoml", "nvidia-pytriton", "numpy")


def conditions_of(config: CompareConfig, faces: str) -> dict[str, str]:
    files = {"FP32": config.fp32, "INT8": config.int8, "INT8 for ONNX Runtime": config.int8_onnxruntime}
    digests = [f"{name} {path.name} {file_sha256(path)[:12]}" for name, path in files.items() if path]
    return {
        "hardware": describe_hardware(),
        "server": f"{OURS}: {_versions(TRITON_VENV)}",
        "peers": _versions(config.venv),
        "load": (
            f"closed loop, {faces}, {config.seconds:g} s after {config.warm_up_s:g} s of warm-up, {config.rounds} "
            "rounds, each server started anew in each, generator on the same cores"
        ),
        "model": ", ".join([*digests, f"PyTorch {config.pytorch.name} {file_sha256(config.pytorch)[:12]}"]),
    }


def _versions(venv: Path) -> str:
    folders = [str(folder) for folder in venv.glob("lib/python3*/site-packages")]
    found = {found.name.replace("_", "-").lower(): found.version for found in distributions(path=folders)}
    named = [f"{name} {found[name]}" for name in PACKAGES if name in found]
    return ", ".join([f"Python {platform.python_version()}", *named])
