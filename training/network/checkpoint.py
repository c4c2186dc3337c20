"""Checkpoints that describe themselves: weights as safetensors with the run's settings and metrics in the header."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from contract.files import replacing
from contract.program import UserError
from training.network.model import AgeGenderNet

FORMAT = "agegendernet-1"
BEST_NAME = "best.safetensors"  # in a run's folder


class CheckpointError(UserError, ValueError):
    """The file is no checkpoint of this network; the message names it and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network in evaluation mode and what is known of it."""

    network: AgeGenderNet
    resolution: int
    config: dict[str, Any]  # TrainConfig as it was
    metrics: dict[str, Any]  # of the epoch the weights come from


def save_checkpoint(path: Path, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> None:
    """Write weights, rounded to `dtype`, and description in one step."""
    header = {
        "format": FORMAT,
        "resolution": str(checkpoint.resolution),
        "config": json.dumps(checkpoint.config),
        "metrics": json.dumps(checkpoint.metrics),
    }
    tensors = {
        name: tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in checkpoint.network.state_dict().items()
    }
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, header))  # save_file would leave a file that others may not read


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU, weights as float32. Raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; make it with make train") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not an AgeGenderNet checkpoint (format {header.get('format')!r}, not {FORMAT!r})"
        )
    network = AgeGenderNet()
    try:
        network.load_state_dict(weights)  # copies into float32 parameters, so half-precision files load as well
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit AgeGenderNet: {error}") from error
    return Checkpoint(
        network.eval(), int(header["resolution"]), json.loads(header["config"]), json.loads(header["metrics"])
    )
