"""An engine that the server could not load is refused before it is started, with the command that mends it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.repository import EngineManifest, Profile, write_engine_manifest
from contract.spec import MAX_BATCH_SIZE, MODEL_NAME
from serving.errors import PreflightError
from serving.launch import PROJECT
from serving.preflight import Engine, check_engines
from tests.contract.test_gpu import write_nvidia_smi

VERSION = "11.2.1.2"
ONNX = b"stands for a model: only its hash matters"
MANIFEST = EngineManifest(
    library="tensorrt",
    tensorrt_version=VERSION,
    gpu_name="NVIDIA L4",
    compute_capability="8.9",
    onnx_sha256=hashlib.sha256(ONNX).hexdigest(),
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


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """A repository whose plan fits SERVER."""
    copy = tmp_path / "model_repository"
    shutil.copytree(PROJECT / "model_repository", copy, ignore=shutil.ignore_patterns("model.onnx", "*.plan*"))
    write(copy, MANIFEST)
    return copy


def write(repository: Path, manifest: EngineManifest, version: str = "1") -> Path:
    folder = repository / MODEL_NAME / version
    folder.mkdir(exist_ok=True)
    (folder / "model.plan").write_bytes(b"a plan")
    (folder / "model.onnx").write_bytes(ONNX)
    write_engine_manifest(manifest, folder / "model.plan")
    return folder


def check(repository: Path, *compute_capabilities: str) -> list[Engine]:
    return check_engines(repository, tensorrt_version=VERSION, compute_capabilities=compute_capabilities or ("8.9",))


def problems(repository: Path, *compute_capabilities: str) -> list[str]:
    with pytest.raises(PreflightError) as caught:
        check(repository, *compute_capabilities)
    return str(caught.value).splitlines()


def test_an_engine_built_for_this_server_passes(engines: Path) -> None:
    assert [engine.plan for engine in check(engines)] == [engines / MODEL_NAME / "1" / "model.plan"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"library": "tensorrt-rtx", "tensorrt_version": "1.7.1.116", "compute_capability": "8.6, 12.0"},
            "built with tensorrt-rtx, this server loads engines of tensorrt; build it with make engine LIBRARY",
        ),
        ({"tensorrt_version": "11.2.1.1"}, "built with TensorRT 11.2.1.1, the server has 11.2.1.2"),
        (
            {"compute_capability": "9.0"},
            "built for compute capability 9.0 (hardware compatibility none), a GPU of the server has",
        ),
        (
            {"compute_capability": "9.0", "hardware_compatibility": "same_compute_capability"},
            "(hardware compatibility same_compute_capability), a GPU of the server has 8.9",
        ),
        ({"profile": Profile(1, 8, 32)}, f"config.pbtxt has max_batch_size {MAX_BATCH_SIZE}"),
        ({"profile": Profile(4, 8, MAX_BATCH_SIZE)}, "built for batches of 4 to"),
        ({"onnx_sha256": "0" * 64}, "built from another model than the model.onnx beside it"),
    ],
)
def test_each_difference_is_one_line_with_the_command_that_mends_it(
    engines: Path, change: dict[str, Any], said: str
) -> None:
    write(engines, replace(MANIFEST, **change))
    [problem] = problems(engines)
    assert problem.startswith(f"{engines / MODEL_NAME / '1' / 'model.plan'}: ")
    assert said in problem
    assert "make engine" in problem
    assert problem.endswith(
        f"(DOCKER=1 builds in Triton's container; without, TensorRT {VERSION} must be installed here)"
    )


def test_a_server_of_the_other_library_takes_its_own_engines_alone(engines: Path) -> None:
    server = {"library": "tensorrt-rtx", "tensorrt_version": "1.7.1.116", "compute_capabilities": ["8.6", "12.0"]}
    with pytest.raises(
        PreflightError, match=r"built with tensorrt, .* build it with make engine LIBRARY=tensorrt-rtx$"
    ):
        check_engines(engines, **server)
    change = {"library": "tensorrt-rtx", "tensorrt_version": "1.7.1.116", "compute_capability": "8.6, 12.0"}
    write(engines, replace(MANIFEST, **change))
    assert len(check_engines(engines, **server)) == 1


def test_all_differences_are_told_at_once(engines: Path) -> None:
    write(engines, replace(MANIFEST, tensorrt_version="10.16.1.11", compute_capability="7.5", onnx_sha256=""))
    assert len(problems(engines)) == 3


def test_an_engine_built_for_later_gpus_too_passes_on_them_only(engines: Path) -> None:
    write(engines, replace(MANIFEST, compute_capability="8.0", hardware_compatibility="ampere_plus"))
    check(engines)
    check(engines, "10.0", "8.0")
    assert "a GPU of the server has 7.5" in problems(engines, "7.5")[0]


def test_an_engine_has_to_fit_every_gpu_that_the_server_sees(engines: Path) -> None:
    """Triton makes an instance on each of them."""
    check(engines, "8.9", "8.9")
    [problem] = problems(engines, "8.9", "8.0", "8.0")
    assert "a GPU of the server has 8.0; hide that GPU with CUDA_VISIBLE_DEVICES" in problem


def test_a_missing_plan_manifest_or_model_is_told_apart(engines: Path) -> None:
    folder = engines / MODEL_NAME / "1"
    (folder / "model.onnx").unlink()  # a server needs only the plan
    check(engines)
    (folder / "model.plan.json").unlink()
    assert "model.plan.json does not exist" in problems(engines)[0]
    (folder / "model.plan").unlink()
    assert "does not exist; build it with make engine (DOCKER=1 " in problems(engines)[0]


def test_a_broken_manifest_is_one_line(engines: Path) -> None:
    (engines / MODEL_NAME / "1" / "model.plan.json").write_text("{}")
    [problem] = problems(engines)
    assert "is not an engine's manifest" in problem
    assert "build it again with make engine (DOCKER=1 " in problem


def test_only_the_version_that_is_served_counts(engines: Path) -> None:
    write(engines, replace(MANIFEST, tensorrt_version="10.0.0.0"))
    write(engines, MANIFEST, version="10")
    [engine] = check(engines)
    assert engine.plan.parent.name == "10"
    write(engines, replace(MANIFEST, tensorrt_version="10.0.0.0"), version="11")
    assert "build it again with make engine VERSION=11 (DOCKER=1 " in problems(engines)[0]


def test_a_repository_without_engines_is_told_so(tmp_path: Path) -> None:
    assert "serve it on the CPU" in problems(tmp_path)[0]


def test_the_program_asks_about_the_gpu_that_cuda_is_told_to_use(engines: Path, tmp_path: Path) -> None:
    write_nvidia_smi(tmp_path, "GPU-aa, NVIDIA A100, 8.0", "GPU-bb, NVIDIA L4, 8.9")
    command = [sys.executable, "-m", "serving.preflight", "--repository", str(engines)]

    def ran(visible: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)

    assert ran("1").stdout.endswith("on compute capability 8.9\n")
    assert "a GPU of the server has 8.0" in ran("0").stderr
    assert "hides every GPU; unset it or name one; without a GPU, serve on the CPU" in ran("").stderr


def test_the_program_prints_its_lines_and_fails(engines: Path) -> None:
    write(engines, replace(MANIFEST, tensorrt_version="10.0.0.0", onnx_sha256=""))
    command = [sys.executable, "-m", "serving.preflight", "--repository", str(engines), "--compute-capability", "8.9"]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert [line.partition(" ")[0] for line in ran.stderr.splitlines()] == ["error:", "error:"]
    write(engines, MANIFEST)
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
