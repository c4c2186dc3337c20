"""What only a GPU can prove, each test with the reason why it is skipped where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
import torch

from contract.repository import copy_with_model
from contract.samples import IMAGES_NAME, MANIFEST_NAME, read_manifest, write_manifest
from convert.engine.source import PRECISIONS, Precision
from convert.int8.ranges import CalibrationOptions
from convert.quantize import QuantizeConfig, quantize
from serving.versions import TENSORRT_VERSION
from tests.convert.conftest import Models, faces, models

__all__ = ["faces", "models"]  # fixtures

PROJECT = Path(__file__).resolve().parents[2]
WITHOUT_GPU = "PyTorch sees no CUDA device" if not torch.cuda.is_available() else ""
WITHOUT_TENSORRT = WITHOUT_GPU or (
    ""
    if find_spec("tensorrt")
    else f"TensorRT is not installed: .venv-uv/bin/uv pip install tensorrt=={TENSORRT_VERSION}"
)
WITHOUT_DOCKER = WITHOUT_GPU or ("" if shutil.which("docker") else "Docker is not installed")


@pytest.fixture(scope="session")
def onnx_models(models: Models, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    """The small network of the conversion tests in each precision."""
    folder = tmp_path_factory.mktemp("int8")
    shutil.copyfile(faces.with_name(IMAGES_NAME), folder / IMAGES_NAME)
    write_manifest(read_manifest(faces).assign(split="train"), folder / MANIFEST_NAME)
    config = QuantizeConfig((folder / MANIFEST_NAME,), models.onnx, calibration=CalibrationOptions(faces=16))
    onnx.save(quantize(config), folder / "model.int8.onnx")
    return {"fp32": models.onnx, "fp16": models.fp16_onnx, "int8": folder / "model.int8.onnx"}


@pytest.fixture(scope="session")
def plans(onnx_models: dict[Precision, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Precision, Path]:
    """An engine of each, as the program builds them, each in a model repository of its own."""
    found: dict[Precision, Path] = {}
    for precision in PRECISIONS:
        repository = tmp_path_factory.mktemp(precision) / "model_repository"
        copy_with_model(PROJECT / "model_repository", repository, onnx_models[precision])
        model = repository / "agegendernet" / "1" / "model.onnx"
        cache = repository.with_name("timing.cache")
        command = [sys.executable, "-m", "convert.build_engine", "--onnx", model, "--precision", precision]
        subprocess.run([*command, "--timing-cache", cache], cwd=PROJECT, check=True)
        assert cache.stat().st_size > 0
        found[precision] = model.with_name("model.plan")
    return found
