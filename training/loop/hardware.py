"""What a device could do at most, and what the network asks of it."""

from __future__ import annotations

import platform
import resource

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.network.model import AgeGenderNet

# Dense bf16 tensor-core peaks in TFLOP/s, from NVIDIA's data sheets, by the name that the driver gives.
PEAK_BF16_TFLOPS = {
    "NVIDIA B200": 2250.0,
    "NVIDIA H200": 989.4,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA L40S": 362.1,
    "NVIDIA L4": 121.0,
}


def device_name(device: torch.device) -> str:
    """Name a device as its driver does; a CPU by its model and the threads that compute."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.cpu.get_capabilities().get('cpu_name', platform.machine())}, {torch.get_num_threads()} threads"


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bf16, rather than software in its place."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def forward_macs(side_px: int) -> int:
    """Count the multiply-adds of the network forward for one image of so many pixels a side.

    Those of its convolutions and matrix products.
    """
    with torch.device("meta"):
        network, faces = AgeGenderNet().eval(), torch.empty(1, 3, side_px, side_px)
    with FlopCounterMode(display=False) as counter:
        network(faces)
    return counter.get_total_flops() // 2


def peak_share(images_per_s: float, *, side_px: int, device: str) -> float | None:
    """Return the share of the device's bf16 peak that so many images/s are; None where the peak is not known.

    Forward and backward together count as three times forward: a gradient for the input and one for the weights.
    """
    peak = PEAK_BF16_TFLOPS.get(device)
    return None if peak is None else images_per_s * 3 * 2 * forward_macs(side_px) / (peak * 1e12)


def peak_memory_gib(device: torch.device) -> float:
    """Return the most that tensors took on a GPU since its statistics were reset; on a CPU, that the process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
