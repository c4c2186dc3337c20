"""Which GPUs CUDA programs started here will use, as nvidia-smi, which every driver brings, tells their kinds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from contract.program import UserError


class GpuError(UserError, RuntimeError):
    """No GPU can be asked what it is, or it is not known which one CUDA takes; the message says what to do."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: what an engine is bound to."""

    name: str
    compute_capability: str  # as NVIDIA writes it: 8.6


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Return the GPUs that CUDA shows to a program with these variables, in its order. Raises GpuError.

    CUDA_VISIBLE_DEVICES names them by UUID or by number, and CUDA counts by speed, nvidia-smi by bus, unless
    CUDA_DEVICE_ORDER is PCI_BUS_ID: where GPUs of several kinds are counted by speed, GpuError is raised.
    (CUDA C++ Programming Guide, CUDA Environment Variables.)
    """
    listed = _listed()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        raise GpuError(f"CUDA_VISIBLE_DEVICES={visible} hides every GPU; unset it or name one")
    chosen = [str(number) for number in range(len(listed))] if visible is None else visible.split(",")
    kinds = set(listed.values())
    if len(kinds) == 1:  # then it matters neither how they are counted nor which are chosen
        return [*kinds] * len(chosen)
    return [_named(device.strip(), listed, environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID") for device in chosen]


def _named(device: str, listed: Mapping[str, Gpu], by_bus: bool) -> Gpu:
    """The GPU of one entry of CUDA_VISIBLE_DEVICES: a number, or the beginning of a UUID."""
    if device.isdecimal() and not by_bus:
        names = ", ".join(dict.fromkeys(gpu.name for gpu in listed.values()))
        raise GpuError(
            f"this machine has GPUs of several kinds ({names}), and CUDA counts them in an order of its own: set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID, and CUDA_VISIBLE_DEVICES to those of one kind"
        )
    if device.isdecimal() and int(device) < len(listed):
        return list(listed.values())[int(device)]
    for uuid, gpu in listed.items():
        if device.startswith("GPU-") and uuid.startswith(device):
            return gpu
    raise GpuError(f"CUDA_VISIBLE_DEVICES names {device}, which is none of nvidia-smi's GPUs: {', '.join(listed)}")


def _listed() -> dict[str, Gpu]:
    """All GPUs by UUID, in the order of the bus."""
    command = ["nvidia-smi", "--query-gpu=uuid,name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        raise GpuError("nvidia-smi is not installed: this needs an NVIDIA GPU and its driver") from None
    except subprocess.TimeoutExpired as error:
        raise GpuError(f"nvidia-smi does not answer within {error.timeout:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise GpuError(f"nvidia-smi finds no GPU: {(error.stderr or error.stdout).strip()}") from error
    if not (found := dict(_parsed(line) for line in answer.stdout.splitlines())):
        raise GpuError("nvidia-smi finds no GPU")
    return found


def _parsed(line: str) -> tuple[str, Gpu]:
    uuid, comma, rest = line.partition(", ")
    name, second_comma, compute_capability = rest.rpartition(", ")
    if not comma or not second_comma:
        raise GpuError(f"nvidia-smi answered {line!r} where UUID, name and compute capability were expected")
    return uuid, Gpu(name, compute_capability.strip())
