"""Triton's container end to end: an engine built in it, served from it, asked over gRPC and HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients import FaceAttributesClient
from contract.repository import copy_with_model
from contract.samples import load_samples
from convert.runtimes import load
from serving import docker
from serving.server import ANY_PORTS, TritonServer
from tests.convert.conftest import Models
from tests.gpu.conftest import PROJECT, WITHOUT_DOCKER

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the image is tens of gigabytes
    pytest.mark.skipif(bool(WITHOUT_DOCKER), reason=WITHOUT_DOCKER),
]


@pytest.fixture(scope="module")
def container(models: Models) -> Iterator[TritonServer]:
    """The running container. The builder's container sees the project's folder alone, so the repository is in it."""
    folder = PROJECT / "runs" / "test-container"
    shutil.rmtree(folder, ignore_errors=True)
    repository = copy_with_model(PROJECT / "model_repository", folder / "model_repository", models.fp16_onnx)
    model = repository / "agegendernet" / "1" / "model.onnx"
    cache = folder / "timing.cache"
    arguments = ["--onnx", str(model.relative_to(PROJECT)), "--timing-cache", str(cache.relative_to(PROJECT))]
    assert docker.build_engine(arguments) == 0
    options = replace(ANY_PORTS, docker=True, log=folder / "triton.log", start_timeout_s=600)
    with TritonServer(repository, options) as server:
        yield server
    shutil.rmtree(folder)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_container_answers_as_the_model_does(
    container: TritonServer, models: Models, faces: Path, protocol: str
) -> None:
    images = next(load_samples(faces).image_batches(24))
    expected = load(models.onnx, "onnx")(images)
    with FaceAttributesClient(container.grpc_url if protocol == "grpc" else container.http_url) as client:
        ages = [client.predict(image).age for image in images]
    assert np.abs(np.array(ages) - expected.age).max() <= 0.5
