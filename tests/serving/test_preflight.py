"""An engine that the server could not load is refused before it is started, with the command that mends it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.spec import MAX_BATCH_SIZE, MODEL_NAME
from serving.errors import PreflightError
from serving.launch import PROJECT
from serving.preflight import check

SERVER = {"tensorrt_version": "11.2.1.2", "compute_capability": "8.9"}
ONNX = b"stands for a model: only its hash matters"
MANIFEST = {
    "tensorrt_version": "11.2.1.2",
    "gpu_name": "NVIDIA L4",
    "compute_capability": "8.9",
    "onnx_sha256": hashlib.sha256(ONNX).hexdigest(),
    "profile": {"min": 1, "opt": 16, "max": MAX_BATCH_SIZE},
    "precision": "fp16",
    "layer_precisions": {"Half": 40, "Float": 12},
    "hardware_compatibility": "none",
    "version_compatible": False,
    "built_at": "2026-11-23T12:00:00+00:00",
}


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """A repository whose plan fits SERVER."""
    copy = tmp_path / "model_repository"
    shutil.copytree(PROJECT / "model_repository", copy, ignore=shutil.ignore_patterns("*.onnx", "*.plan*"))
    write(copy, MANIFEST)
    return copy


def write(repository: Path, manifest: dict[str, Any], version: str = "1") -> Path:
    folder = repository / MODEL_NAME / version
    folder.mkdir(exist_ok=True)
    (folder / "model.plan").write_bytes(b"a plan")
    (folder / "model.onnx").write_bytes(ONNX)
    (folder / "model.plan.json").write_text(json.dumps(manifest))
    return folder


def problems(repository: Path) -> list[str]:
    with pytest.raises(PreflightError) as caught:
        check(repository, **SERVER)
    return str(caught.value).splitlines()


def test_an_engine_built_for_this_server_passes(engines: Path) -> None:
    assert [engine.plan for engine in check(engines, **SERVER)] == [engines / MODEL_NAME / "1" / "model.plan"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensorrt_version": "11.2.1.1"}, "built with TensorRT 11.2.1.1, the server has 11.2.1.2"),
        ({"compute_capability": "9.0"}, "built for compute capability 9.0 (hardware compatibility none), this GPU has"),
        (
            {"compute_capability": "9.0", "hardware_compatibility": "same_compute_capability"},
            "(hardware compatibility same_compute_capability), this GPU has 8.9",
        ),
        ({"profile": {"min": 1, "opt": 8, "max": 32}}, f"config.pbtxt has max_batch_size {MAX_BATCH_SIZE}"),
        ({"profile": {"min": 4, "opt": 8, "max": MAX_BATCH_SIZE}}, "built for batches of 4 to"),
        ({"onnx_sha256": "0" * 64}, "built from another model than the model.onnx beside it"),
    ],
)
def test_each_difference_is_one_line_with_the_command_that_mends_it(
    engines: Path, change: dict[str, Any], said: str
) -> None:
    write(engines, MANIFEST | change)
    [problem] = problems(engines)
    assert problem.startswith(f"{engines / MODEL_NAME / '1' / 'model.plan'}: ")
    assert said in problem
    assert "make engine DOCKER=1" in problem


def test_all_differences_are_told_at_once(engines: Path) -> None:
    write(engines, MANIFEST | {"tensorrt_version": "10.16.1.11", "compute_capability": "7.5", "onnx_sha256": ""})
    assert len(problems(engines)) == 3


def test_an_engine_built_for_later_gpus_too_passes_on_them_only(engines: Path) -> None:
    write(engines, MANIFEST | {"compute_capability": "8.0", "hardware_compatibility": "ampere_plus"})
    check(engines, **SERVER)
    check(engines, tensorrt_version="11.2.1.2", compute_capability="10.0")
    with pytest.raises(PreflightError, match=r"this GPU has 7\.5"):
        check(engines, tensorrt_version="11.2.1.2", compute_capability="7.5")


def test_a_missing_plan_manifest_or_model_is_told_apart(engines: Path) -> None:
    folder = engines / MODEL_NAME / "1"
    (folder / "model.onnx").unlink()  # a server needs only the plan
    check(engines, **SERVER)
    (folder / "model.plan.json").unlink()
    assert "has no manifest model.plan.json" in problems(engines)[0]
    (folder / "model.plan").unlink()
    assert "does not exist; build it with make engine DOCKER=1" in problems(engines)[0]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tensorrt_version": "11.2.1.2"}'])
def test_a_broken_manifest_is_one_line(engines: Path, text: str) -> None:
    (engines / MODEL_NAME / "1" / "model.plan.json").write_text(text)
    [problem] = problems(engines)
    assert "its manifest cannot be read" in problem


def test_only_the_version_that_is_served_counts(engines: Path) -> None:
    write(engines, MANIFEST | {"tensorrt_version": "10.0.0.0"})
    write(engines, MANIFEST, version="10")
    [engine] = check(engines, **SERVER)
    assert engine.version == 10
    write(engines, MANIFEST | {"tensorrt_version": "10.0.0.0"}, version="11")
    assert problems(engines)[0].endswith("build it again with make engine DOCKER=1 VERSION=11")


def test_a_repository_without_engines_is_told_so(tmp_path: Path) -> None:
    assert "serve it on the CPU" in problems(tmp_path)[0]


def test_the_program_prints_its_lines_and_fails(engines: Path) -> None:
    write(engines, MANIFEST | {"tensorrt_version": "10.0.0.0", "onnx_sha256": ""})
    command = [sys.executable, "-m", "serving.preflight", "--repository", str(engines), "--compute-capability", "8.9"]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert [line.partition(" ")[0] for line in ran.stderr.splitlines()] == ["error:", "error:"]
    write(engines, MANIFEST)
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
