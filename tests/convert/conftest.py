"""Small real models for the conversion tests: a network whose answers differ from face to face, exported both ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from contract.samples import COLUMNS, IMAGES_NAME, MANIFEST_NAME, write_manifest
from contract.spec import EMOTIONS, IMAGE
from convert.export_onnx import export
from training.network.checkpoint import Checkpoint, save_checkpoint
from training.network.model import AgeGenderNet
from training.network.preprocess import Preprocess

FACES = 24


@dataclass(frozen=True)
class Models:
    checkpoint: Path
    onnx: Path
    fp16_onnx: Path


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of labelled pictures: a random colour each, so that answers differ; half of them under ten."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (FACES, 1, 1, 3), np.uint8)
    noise = rng.integers(0, 32, (FACES, *IMAGE.dims), np.uint8)
    np.save(folder / IMAGES_NAME, np.clip(colours.astype(int) + noise, 0, 255).astype(np.uint8))
    table = pd.DataFrame({name: [0.0] * FACES for name in COLUMNS})
    table["id"] = table["path"] = [f"{i:05}" for i in range(FACES)]
    table["age"] = [float(i % 10 if i < FACES // 2 else 10 + i % 60) for i in range(FACES)]
    table["gender"] = [float(i % 2) for i in range(FACES)]
    for i in range(FACES):
        table.loc[i, EMOTIONS[i % 8]] = 1.0
    table["split"] = "holdout"
    write_manifest(table, folder / MANIFEST_NAME)
    return folder / MANIFEST_NAME


def lively_checkpoint(faces: Path, seed: int) -> Checkpoint:
    """Untrained, but normalised on the pictures and with heads that spread their answers."""
    torch.manual_seed(seed)
    network = AgeGenderNet()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the running statistics become those of the one batch below
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    images = torch.from_numpy(np.load(faces.with_name(IMAGES_NAME))[:16])
    with torch.no_grad():
        network.train()(Preprocess(128)(images))
        network.age_head[-1].weight.mul_(10)
        network.age_head[-1].bias.fill_(20)
    return Checkpoint(network.eval(), 128, {}, {})


@pytest.fixture(scope="session")
def rtx_installed() -> None:
    """Skip where TensorRT-RTX, which builds without a GPU, is not installed; `make test` installs it."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed; run make test")


@pytest.fixture(scope="session")
def models(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    found = Models(folder / "best.safetensors", folder / "model.onnx", folder / "half.onnx")
    checkpoint = lively_checkpoint(faces, seed=0)
    images = np.load(faces.with_name(IMAGES_NAME))[:4]
    save_checkpoint(found.checkpoint, checkpoint)
    export(checkpoint, found.onnx, precision="fp32", images=images)
    export(checkpoint, found.fp16_onnx, precision="fp16", images=images)
    return found
