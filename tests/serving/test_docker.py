"""The container: one pin, and command lines that Docker's own client accepts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from contract.spec import GRPC_PORT, HTTP_PORT, METRICS_PORT
from serving import docker, versions
from serving.launch import PROJECT, Ports, server_arguments
from serving.lock import KEY_VARIABLE

COMPOSE = (PROJECT / "compose.yaml").read_text()
PORTS = Ports(18000, 18001, 18002)
KEY = "a-key-that-nobody-else-sees"
DEFAULT_PORTS = {"HTTP": HTTP_PORT, "GRPC": GRPC_PORT, "METRICS": METRICS_PORT}


def arguments() -> list[str]:
    return server_arguments(docker.MODELS, config_name="", model_control=False, verbose=False, exit_timeout_s=10)


def test_both_stages_are_of_the_pinned_release() -> None:
    dockerfile = versions.DOCKERFILE.read_text()
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == [
        "nvcr.io/nvidia/tritonserver:${TRITON_RELEASE}-py3",
        "server",
    ]
    assert re.fullmatch(r"\d\d\.\d\d", versions.TRITON_RELEASE)
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", versions.TENSORRT_VERSION)


def test_no_other_file_of_the_project_repeats_the_pin() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    code = [Path(name) for name in listed.stdout.split() if name.endswith((".py", ".yaml", "Makefile"))]
    for path in code:
        if "tests" not in path.parts and (PROJECT / path).exists():
            text = (PROJECT / path).read_text()
            assert versions.TENSORRT_VERSION not in text, path
            assert f"tritonserver:{versions.TRITON_RELEASE}" not in text, path


@pytest.mark.parametrize(
    ("package", "lock"),
    [
        *((name, "triton.txt") for name in ("pillow", "pillow-heif", "openvino", "openvino-telemetry")),
        ("onnx", "builder.txt"),
        ("tyro", "builder.txt"),
    ],
)
def test_packages_of_the_image_are_taken_from_the_lock_files(package: str, lock: str) -> None:
    assert re.search(rf"^{package}==", (PROJECT / "requirements" / lock).read_text(), re.MULTILINE)
    dockerfile = versions.DOCKERFILE.read_text()
    assert lock in dockerfile
    assert dockerfile.count("--require-hashes") == 2


def test_the_server_is_reachable_from_this_machine_only_and_may_not_change_the_repository() -> None:
    command = docker.launch(Path("/somewhere"), arguments(), PORTS, key=KEY).arguments
    published = [argument for argument in command if argument.startswith("--publish")]
    assert published == [f"--publish=127.0.0.1:1800{n}:{port}" for n, port in enumerate(DEFAULT_PORTS.values())]
    assert "--volume=/somewhere:/models:ro" in command
    assert "--model-repository=/models" in command
    assert "--user=1000:1000" in command
    assert "--gpus=all" in command
    assert "--env=CUDA_VISIBLE_DEVICES" in command  # the choice that the preflight honours


def test_the_containers_key_is_on_no_command_line() -> None:
    launch = docker.launch(Path(), arguments(), PORTS, key=KEY)
    assert KEY not in " ".join(launch.arguments)
    assert f"--env={KEY_VARIABLE}" in launch.arguments
    assert launch.environment[KEY_VARIABLE] == KEY


def test_compose_describes_the_same_server() -> None:
    for line in (
        "dockerfile: serving/Dockerfile",
        "target: server",
        "./model_repository:/models:ro",
        f"shm_size: {docker.SHM_SIZE}",
        'user: "1000:1000"',
        "memlock: -1",
        "stack: 67108864",
        "capabilities: [gpu]",
        *(f"127.0.0.1:${{{name}_PORT:-{port}}}:{port}" for name, port in DEFAULT_PORTS.items()),
        "      CUDA_VISIBLE_DEVICES:",
        "      CUDA_DEVICE_ORDER:",
        f"      {KEY_VARIABLE}: ${{{KEY_VARIABLE}?",
        f"test: [CMD, {', '.join(docker.CONTAINER_PROGRAM)}, --probe]",
        "restart: unless-stopped",
        "init: true",
    ):
        assert line in COMPOSE
    served = re.search(r"command: \[(.*)\]", COMPOSE)
    assert served is not None
    assert set(served[1].split(", ")) == {*docker.CONTAINER_PROGRAM, *arguments()} - {"--log-verbose=0"}


def test_makefile_and_dockerfile_have_the_default_ports() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    assert dict(re.findall(r"^(HTTP|GRPC|METRICS)_PORT := (\d+)$", makefile, re.MULTILINE)) == {
        name: str(port) for name, port in DEFAULT_PORTS.items()
    }
    assert f"EXPOSE {HTTP_PORT} {GRPC_PORT} {METRICS_PORT}\n" in versions.DOCKERFILE.read_text()


def test_a_plan_with_code_of_its_own_is_allowed_only_where_there_is_one() -> None:
    flag = "--backend-config=tensorrt,version-compatible=true"
    assert flag not in docker.launch(Path(), arguments(), PORTS, key=KEY).arguments
    assert flag in docker.launch(Path(), arguments(), PORTS, key=KEY, version_compatible=True).arguments


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
def test_docker_understands_the_command_line(tmp_path: Path) -> None:
    """Options are read before the daemon is called; without one the complaint is about it, not about them."""
    launch = docker.launch(tmp_path, arguments(), PORTS, key=KEY)
    environment = {**launch.environment, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    ran = subprocess.run(launch.arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "unknown flag" not in ran.stderr
    assert "invalid" not in ran.stderr.lower()
    assert "daemon" in ran.stderr
