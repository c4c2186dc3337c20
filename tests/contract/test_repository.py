"""A model repository on disk: what a server would read and serve, and an engine's manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from contract.repository import (
    PLAN_NAME,
    EngineManifest,
    EngineManifestError,
    Profile,
    RepositoryError,
    copy_with_model,
    engine_manifest_path,
    file_sha256,
    model_config_path,
    read_engine_manifest,
    read_model_config,
    served_version,
    version_numbers,
    write_engine_manifest,
)
from contract.spec import MAX_BATCH_SIZE, MODEL_NAME

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
MANIFEST = EngineManifest(
    library="tensorrt",
    tensorrt_version="11.2.1.2",
    gpu_name="NVIDIA L4",
    compute_capability="8.9",
    onnx_sha256="0" * 64,
    profile=Profile(1, 16, MAX_BATCH_SIZE),
    precision="fp16",
    layer_types={"HALF": 116, "FLOAT": 58},
    convolution_types={"fp16": 25},
    layer_precisions={"fp16": 40, "fp32": 12},
    convolution_precisions={"fp16": 25},
    hardware_compatibility="none",
    version_compatible=False,
    built_at="2026-11-23T12:00:00+00:00",
)


@pytest.mark.parametrize("cpu", [True, False])
def test_the_configuration_of_either_server_is_read_as_a_message(cpu: bool) -> None:
    config = read_model_config(model_config_path(REPOSITORY, cpu=cpu))
    assert (config.name, config.max_batch_size) == (MODEL_NAME, MAX_BATCH_SIZE)
    assert bool(config.backend) == cpu


def test_a_configuration_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"config\.pbtxt cannot be read"):
        read_model_config(tmp_path / "config.pbtxt")
    (tmp_path / "config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(RepositoryError, match=r"config\.pbtxt is not a model configuration"):
        read_model_config(tmp_path / "config.pbtxt")


def test_the_highest_number_is_served_and_what_is_no_version_is_passed_over(tmp_path: Path) -> None:
    assert version_numbers(tmp_path / "absent") == []
    assert served_version(tmp_path / "absent") == tmp_path / "absent" / "1"
    for name in ("2", "10", "010", "configs", ".promoting-11", "rolled-back-12"):
        (tmp_path / name).mkdir()
    (tmp_path / "13").touch()
    assert version_numbers(tmp_path) == [2, 10]
    assert served_version(tmp_path) == tmp_path / "10"


def test_a_copy_serves_the_given_model_with_the_code_of_its_highest_version(tmp_path: Path) -> None:
    model = tmp_path / "int8.onnx"
    model.write_bytes(b"weights")
    first = copy_with_model(REPOSITORY, tmp_path / "first", model)
    (first / MODEL_NAME / "2").mkdir()
    (first / MODEL_NAME / "2" / "model.onnx").write_bytes(b"promoted weights")
    second = copy_with_model(first, tmp_path / "second", model)
    assert [path.relative_to(second) for path in second.rglob("model.onnx")] == [Path(MODEL_NAME, "2", "model.onnx")]
    assert (second / MODEL_NAME / "2" / "model.onnx").read_bytes() == b"weights"
    assert read_model_config(model_config_path(second, cpu=True)).name == MODEL_NAME
    assert (second / MODEL_NAME / "1" / "model.py").exists()


def test_an_engine_is_copied_with_its_manifest(tmp_path: Path) -> None:
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"a plan")
    write_engine_manifest(MANIFEST, plan)
    copied = copy_with_model(REPOSITORY, tmp_path / "copy", plan, name=PLAN_NAME) / MODEL_NAME / "1" / PLAN_NAME
    assert copied.read_bytes() == b"a plan"
    assert read_engine_manifest(copied) == MANIFEST


def test_a_files_hash_is_that_of_its_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than is read at once
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_engine_manifest(MANIFEST, tmp_path / "model.plan")
    assert path == engine_manifest_path(tmp_path / "model.plan") == tmp_path / "model.plan.json"
    assert read_engine_manifest(tmp_path / "model.plan") == MANIFEST


def test_a_missing_manifest_is_answered_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(EngineManifestError, match=r"model\.plan\.json does not exist.*make engine"):
        read_engine_manifest(tmp_path / "model.plan")


WRITTEN = dataclasses.asdict(MANIFEST)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"tensorrt_version": "11.2.1.2"}',
        json.dumps(WRITTEN | {"unknown": 1}),
        json.dumps(WRITTEN | {"profile": {"min": "1", "opt": 8, "max": 64}}),
    ],
)
def test_a_broken_manifest_is_answered_with_the_command(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.plan.json").write_text(text)
    with pytest.raises(EngineManifestError, match=r"is not an engine's manifest .*make engine"):
        read_engine_manifest(tmp_path / "model.plan")
