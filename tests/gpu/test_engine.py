"""TensorRT on a GPU: build, inspector's proof, answers, batches, promotion."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.repository import read_engine_manifest
from contract.samples import load_samples
from contract.spec import MAX_BATCH_SIZE, MODEL_NAME, Images, Predictions
from convert.engine.source import PRECISIONS, Precision
from convert.errors import ModelFileError
from convert.promote import PromoteConfig, promote
from convert.promotion.versions import ModelVersions
from convert.runtimes import load
from evaluation.limits import PARITY_FP16, PARITY_FP32, Limits
from serving.preflight import check_engines
from tests.convert.conftest import Models
from tests.gpu.conftest import PROJECT, WITHOUT_TENSORRT

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WITHOUT_TENSORRT), reason=WITHOUT_TENSORRT)]

LIMITS: dict[Precision, Limits] = {"fp32": PARITY_FP32, "fp16": PARITY_FP16}


@pytest.fixture(scope="session")
def images(faces: Path) -> Images:
    return next(load_samples(faces).image_batches(24))


def capability() -> str:
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_parser_and_the_inspector_prove_the_precision(plans: dict[Precision, Path], precision: Precision) -> None:
    manifest = read_engine_manifest(plans[precision])
    expected = {"int8": 22, "fp16": 3} if precision == "int8" else {precision: 25}
    assert manifest.convolution_types == expected
    assert manifest.convolution_precisions.keys() <= expected.keys()
    assert sum(manifest.convolution_precisions.values()) >= 13  # of 25: TensorRT's compiler may leave names out
    assert manifest.layer_precisions
    assert manifest.library == "tensorrt"
    assert manifest.compute_capability == capability()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_server_would_load_what_was_built(plans: dict[Precision, Path], precision: Precision) -> None:
    version = read_engine_manifest(plans[precision]).tensorrt_version
    repository = plans[precision].parents[2]
    check_engines(repository, tensorrt_version=version, compute_capabilities=[capability()])


@pytest.mark.parametrize("precision", LIMITS)
def test_torch_onnx_runtime_and_the_engine_agree(
    plans: dict[Precision, Path], models: Models, images: Images, precision: Precision
) -> None:
    found = load(plans[precision], "tensorrt")(images)
    for expected in (load(models.checkpoint, "torch")(images), load(models.onnx, "onnx")(images)):
        for head, unit in (("age", "years"), ("gender", "probability"), ("emotion", "probability")):
            difference = np.abs(getattr(found, head) - getattr(expected, head)).max()
            assert difference <= LIMITS[precision].of(f"{head}_{unit}"), head


def test_the_int8_engine_answers_as_its_model_does(
    plans: dict[Precision, Path], onnx_models: dict[Precision, Path], images: Images
) -> None:
    found, expected = load(plans["int8"], "tensorrt")(images), load(onnx_models["int8"], "openvino")(images)
    assert np.corrcoef(found.age, expected.age)[0, 1] > 0.95


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_answer_does_not_depend_on_the_batch_it_is_in(
    plans: dict[Precision, Path], images: Images, precision: Precision
) -> None:
    predict = load(plans[precision], "tensorrt")
    batch = np.resize(images, (MAX_BATCH_SIZE, *images.shape[1:]))
    whole = predict(batch)
    for count in (*range(1, 10), 15, 16, 17, 31, 32, 33, MAX_BATCH_SIZE - 1, MAX_BATCH_SIZE):
        assert largest_difference(predict(batch[:count]), whole, count) < 0.1, count
    with pytest.raises(ValueError, match=f"a batch of {MAX_BATCH_SIZE + 1} is larger"):
        predict(np.resize(images, (MAX_BATCH_SIZE + 1, *images.shape[1:])))


def largest_difference(found: Predictions, whole: Predictions, count: int) -> float:
    """In years, or in hundredths of probability."""
    pairs = ((found.age, whole.age, 1), (found.gender, whole.gender, 100), (found.emotion, whole.emotion, 100))
    return max(float(np.abs(ours - theirs[:count]).max()) * scale for ours, theirs, scale in pairs)


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"a plan")
    with pytest.raises(ModelFileError, match="build it again with make engine"):
        load(tmp_path / "model.plan", "tensorrt")


@pytest.mark.parametrize("options", [["--hardware-compatibility", "ampere_plus"], ["--version-compatible"]], ids=str)
def test_a_plan_for_other_gpus_or_versions_runs_here_too(
    plans: dict[Precision, Path], images: Images, tmp_path: Path, options: list[str]
) -> None:
    if "ampere_plus" in options and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip(f"this GPU, of compute capability {capability()}, is older than Ampere")
    model, plan = plans["fp16"].with_name("model.onnx"), tmp_path / "model.plan"
    config = plans["fp16"].parents[1] / "config.pbtxt"
    command = [sys.executable, "-m", "convert.build_engine", "--onnx", model, "--out", plan, "--model-config", config]
    subprocess.run([*command, *options], cwd=PROJECT, check=True)
    found, expected = load(plan, "tensorrt")(images), load(plans["fp16"], "tensorrt")(images)
    assert np.abs(found.age - expected.age).max() <= PARITY_FP16.of("age_years")


def test_a_plan_is_promoted_with_its_model_and_manifest(plans: dict[Precision, Path], faces: Path) -> None:
    plan = plans["fp16"]
    versions = ModelVersions(plan.parents[1])
    config = PromoteConfig(plan.with_name("model.onnx"), faces, plan, model=plan.parents[1], runtime="onnx")
    said = promote(versions, replace(config, overall=Limits(), group=Limits()))
    assert said.startswith("version 2 replaces version 1")
    promoted = plan.parents[1] / "2"
    assert {"model.onnx", "model.plan", "model.plan.json"} <= {path.name for path in promoted.iterdir()}
    assert "Both in tensorrt on" in (promoted / "promotion.md").read_text()
    [engine] = check_engines(
        plan.parents[2],
        tensorrt_version=read_engine_manifest(plan).tensorrt_version,
        compute_capabilities=[capability()],
    )
    assert engine.plan == plan.parents[2] / MODEL_NAME / "2" / "model.plan"
