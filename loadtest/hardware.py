"""On what machine a load test ran, and with what server."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path

from contract.spec import CPU_ENGINE
from serving.installation import DEFAULT_VENV

SERVER_PACKAGES = ("nvidia-pytriton", CPU_ENGINE, "numpy")


def describe_hardware() -> str:
    """Return processor, the cores that this process may use, and GPUs."""
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    return "; ".join(filter(None, [f"{_processor()}, {cores}", _gpus()]))


def server_versions() -> str:
    """Return the packages of the CPU server's environment, which is not this one."""
    [site, *_] = [*DEFAULT_VENV.glob("lib/python3*/site-packages"), DEFAULT_VENV]
    found = {found.name.replace("_", "-"): found.version for found in distributions(path=[str(site)])}
    return ", ".join(f"{name} {found[name]}" for name in SERVER_PACKAGES if name in found)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "; ".join(f"GPU {line}" for line in done.stdout.splitlines()) if done.returncode == 0 else ""
