"""A model repository with an untrained network, and the real Triton server that serves it: made once for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.spec import IMAGE, MODEL_NAME, Images
from serving.installation import DEFAULT_VENV
from serving.server import ANY_PORTS, TritonServer

pytest_plugins = ("tests.datasets",)

PROJECT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--endurance", action="store_true", help="also run the tests that take minutes by their nature")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs the server, for `make test-fast`; leave out what takes minutes unless it is asked for."""
    for item in items:
        if "endurance" in item.keywords and not config.getoption("endurance"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run make test ARGS=--endurance"))
        if {"triton_server", "repository"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("server")


@pytest.fixture(scope="session")
def noise() -> Images:
    """Eight canonical images of noise, [8, 128, 128, 3]."""
    return np.random.default_rng(0).integers(0, 256, (8, *IMAGE.dims), dtype=np.uint8)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, noise: Images) -> Path:
    """A copy of model_repository whose network answers differently from image to image, as a trained one does."""
    import torch

    from convert.export_onnx import export
    from training.network.checkpoint import Checkpoint
    from training.network.model import AgeGenderNet

    torch.manual_seed(0)
    network = AgeGenderNet().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):  # as published, answers would differ by a millionth
            torch.nn.init.kaiming_normal_(module.weight)
    folder = tmp_path_factory.mktemp("serving") / "model_repository"
    shutil.copytree(PROJECT / "model_repository", folder, ignore=shutil.ignore_patterns("model.onnx", "*.plan*"))
    export(Checkpoint(network, 128, {}, {}), folder / MODEL_NAME / "1" / "model.onnx", precision="fp32", images=noise)
    return folder


@pytest.fixture(scope="session")
def triton_server(repository: Path) -> Iterator[TritonServer]:
    """The running server; skips where it is not installed."""
    if not DEFAULT_VENV.exists():
        pytest.skip("the Triton server is not installed; run make setup")
    with TritonServer(repository, replace(ANY_PORTS, log=repository.parent / "triton.log")) as server:
        yield server
