"""Checkpoint -> a program of torch.export, which PyTorch runs without this project's code: what loadtest compares with.

python -m convert.export_torch --checkpoint weights/agegendernet-128.safetensors --out runs/shipped/model.pt2
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from contract import program
from contract.files import replacing
from contract.spec import IMAGE
from convert.serving_model import ServingModel
from training.network.checkpoint import load_checkpoint


@dataclass(frozen=True)
class ExportTorchConfig:
    """Write a checkpoint as a .pt2 file: canonical uint8 images in, years and probabilities out, any batch size."""

    checkpoint: Path  # best.safetensors of a run
    out: Path = Path("runs/shipped/model.pt2")


def main(config: ExportTorchConfig) -> None:
    """Export in float32. Raises CheckpointError."""
    network = ServingModel(load_checkpoint(config.checkpoint)).eval()
    example = torch.zeros(2, *IMAGE.dims, dtype=torch.uint8)  # a batch of 1 would be taken for a constant
    exported = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # which line of which file on this machine is nobody else's business
    archive = io.BytesIO()  # given a path, it would name the archive's folder after the temporary file
    torch.export.save(exported, archive)
    with replacing(config.out) as temporary:
        temporary.write_bytes(archive.getvalue())
    print(f"wrote {config.out} ({config.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ExportTorchConfig)))
