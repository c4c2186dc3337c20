"""Triton's container as the GPU server, and as the place where its engines are built.

python -m serving.docker build-engine --onnx model_repository/agegendernet/1/model.onnx
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from contract import program
from contract.spec import GRPC_PORT, HTTP_PORT, METRICS_PORT
from serving.errors import SetupError
from serving.launch import LOOPBACK, PROJECT, Launch, Ports
from serving.lock import KEY_VARIABLE
from serving.versions import DOCKERFILE, TRITON_RELEASE

Stage = Literal["server", "builder"]
MODELS = Path("/models")  # where the container sees the repository
GPUS = (
    "--gpus=all",
    "--env=CUDA_VISIBLE_DEVICES",
    "--env=CUDA_DEVICE_ORDER",
)  # of which CUDA takes the caller's choice
CONTAINER_PROGRAM = ("python3", "-m", "serving.container")  # which adds the lock and watches the server
SHM_SIZE = "1gb"  # the Python backend passes images through it; Docker's 64 MB hold one batch


def image(stage: Stage) -> str:
    return f"agegendernet-{stage}:{TRITON_RELEASE}"


def build(stage: Stage) -> None:
    """Build a stage of the Dockerfile, its progress on the terminal. Raises SetupError."""
    if shutil.which("docker") is None:
        raise SetupError("docker is not installed; install it with NVIDIA's container toolkit, or serve on the CPU")
    command = ["docker", "build", f"--file={DOCKERFILE}", f"--target={stage}", f"--tag={image(stage)}", str(PROJECT)]
    if (status := subprocess.run(command, check=False).returncode) != 0:
        raise SetupError(f"docker build ended with status {status}; its messages are above")


def launch(
    repository: Path, arguments: list[str], ports: Ports, *, key: str, version_compatible: bool = False
) -> Launch:
    """Return how to start the server's container, `arguments` naming the repository MODELS; an empty key is no lock."""
    name = f"agegendernet-{os.getpid()}-{ports.grpc}"
    if version_compatible:  # such a plan brings code of its own, which the backend runs only if told so
        arguments = [*arguments, "--backend-config=tensorrt,version-compatible=true"]
    published = zip((ports.http, ports.grpc, ports.metrics), (HTTP_PORT, GRPC_PORT, METRICS_PORT), strict=True)
    command = (
        *("docker", "run", "--rm", "--init", f"--name={name}", *GPUS, f"--shm-size={SHM_SIZE}"),
        f"--env={KEY_VARIABLE}",  # taken from our environment, unlike arguments unseen by other users
        *("--ulimit=memlock=-1", "--ulimit=stack=67108864"),  # pinned memory, and what Triton's documentation asks for
        *(f"--publish={LOOPBACK}:{port}:{inside}" for port, inside in published),
        "--user=1000:1000",
        f"--volume={repository.absolute()}:{MODELS}:ro",
        image("server"),
        *CONTAINER_PROGRAM,
        *arguments,
    )
    return Launch(command, {**os.environ, KEY_VARIABLE: key}, cleanup=(("docker", "rm", "--force", name),))


def build_engine(arguments: list[str]) -> int:
    """Run convert.build_engine in the builder's container, on the project as it is here; its exit status."""
    build("builder")
    command = [
        *("docker", "run", "--rm", *GPUS, f"--user={os.getuid()}:{os.getgid()}"),  # the plan is to be ours
        *(f"--volume={PROJECT}:/project", "--workdir=/project", "--env=PYTHONPATH=/project", "--env=HOME=/tmp"),
        image("builder"),
        *("python3", "-m", "convert.build_engine", *arguments),
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:2] != ["build-engine"]:
        sys.exit(f"usage: python -m serving.docker build-engine [options of convert.build_engine]\n{__doc__}")
    program.run(lambda: build_engine(sys.argv[2:]))
