"""Would the server load these engines? Compares each plan's manifest with the server and the GPU that are about to.

python -m serving.preflight --repository model_repository

TensorRT itself refuses a plan only after the server has started, and names neither version nor command.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract import program
from serving.errors import PreflightError, SetupError
from serving.versions import TENSORRT_VERSION


@dataclass(frozen=True)
class PreflightConfig:
    """Compare every engine of a repository with the server that is about to load it."""

    repository: Path = Path("model_repository")
    tensorrt_version: str = TENSORRT_VERSION  # of the server
    compute_capability: str | None = None  # of its GPU, such as 8.9; by default of this machine's first


@dataclass(frozen=True)
class Engine:
    """A version of a model in the repository, and what its configuration wants of the plan."""

    model: Path
    version: int
    max_batch_size: int

    @property
    def plan(self) -> Path:
        return self.model / str(self.version) / "model.plan"

    @property
    def build(self) -> str:
        """The command that makes it."""
        return "make engine DOCKER=1" + (f" VERSION={self.version}" if self.version != 1 else "")

    @property
    def manifest(self) -> Path:
        return self.plan.with_name(f"{self.plan.name}.json")


@dataclass(frozen=True)
class Manifest:
    """What `model.plan.json` says that a server must know."""

    tensorrt_version: str
    compute_capability: str
    onnx_sha256: str
    profile_min: int
    profile_max: int
    hardware_compatibility: str
    version_compatible: bool

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises FileNotFoundError, or ValueError for what is no manifest."""
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            names = ("tensorrt_version", "compute_capability", "onnx_sha256", "hardware_compatibility")
            texts = {name: str(values[name]) for name in names}
            profile = values["profile"]
            return cls(
                **texts,
                profile_min=int(profile["min"]),
                profile_max=int(profile["max"]),
                version_compatible=bool(values["version_compatible"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


def check(repository: Path, *, tensorrt_version: str, compute_capability: str) -> list[Engine]:
    """The engines, all of which the server would load. Raises PreflightError with a line for each problem."""
    engines = list(find_engines(repository))
    if not engines:
        raise PreflightError(f"{repository} has no model with platform tensorrt_plan; serve it on the CPU: make serve")
    problems = [
        f"{engine.plan}: {problem}"
        for engine in engines
        for problem in _problems(engine, tensorrt_version, compute_capability)
    ]
    if problems:
        raise PreflightError("\n".join(problems))
    return engines


def find_engines(repository: Path) -> Iterator[Engine]:
    """The plan that the server takes of each model for TensorRT: that of its highest version. Raises PreflightError."""
    for path in sorted(repository.glob("*/config.pbtxt")):
        try:
            config = text_format.Parse(path.read_text(), ModelConfig())
        except text_format.ParseError as error:
            raise PreflightError(f"{path} is not a model configuration: {error}") from None
        if config.platform == "tensorrt_plan":
            versions = [int(folder.name) for folder in path.parent.iterdir() if folder.name.isdecimal()]
            yield Engine(path.parent, max(versions, default=1), config.max_batch_size)


def _problems(engine: Engine, tensorrt_version: str, compute_capability: str) -> Iterator[str]:
    rebuild = f"build it again with {engine.build}"
    if not engine.plan.exists():
        yield f"does not exist; build it with {engine.build}"
        return
    try:
        manifest = Manifest.read(engine.manifest)
    except FileNotFoundError:
        yield f"has no manifest {engine.manifest.name}, so nobody knows what it was built for; {rebuild}"
        return
    except ValueError as error:
        yield f"its manifest cannot be read ({error}); {rebuild}"
        return
    if manifest.tensorrt_version != tensorrt_version:
        yield f"built with TensorRT {manifest.tensorrt_version}, the server has {tensorrt_version}; {rebuild}"
    if not _runs_on(manifest, compute_capability):
        yield (
            f"built for compute capability {manifest.compute_capability} (hardware compatibility "
            f"{manifest.hardware_compatibility}), this GPU has {compute_capability}; {rebuild} on this machine"
        )
    if manifest.profile_min > 1 or manifest.profile_max < engine.max_batch_size:
        yield (
            f"built for batches of {manifest.profile_min} to {manifest.profile_max}, config.pbtxt has max_batch_size "
            f"{engine.max_batch_size}; {rebuild} ARGS='--max-batch {engine.max_batch_size}', or change config.pbtxt"
        )
    model = engine.plan.with_name("model.onnx")
    if model.exists() and hashlib.sha256(model.read_bytes()).hexdigest() != manifest.onnx_sha256:
        yield f"built from another model than the {model.name} beside it; {rebuild}"


def _runs_on(manifest: Manifest, compute_capability: str) -> bool:
    if manifest.hardware_compatibility == "ampere_plus":  # from Ampere, which is 8.0, upwards
        return float(compute_capability) >= 8.0
    return manifest.compute_capability == compute_capability


def gpu_compute_capability() -> str:
    """Of the first GPU, such as 8.9, as the driver's own tool says. Raises SetupError where there is none."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except FileNotFoundError:
        raise SetupError("nvidia-smi is not installed, so no GPU is here; serve on the CPU with make serve") from None
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"nvidia-smi finds no GPU ({error}); serve on the CPU with make serve") from None
    return asked.stdout.strip()


def main(config: PreflightConfig) -> None:
    capability = config.compute_capability or gpu_compute_capability()
    engines = check(config.repository, tensorrt_version=config.tensorrt_version, compute_capability=capability)
    names = ", ".join(str(engine.plan) for engine in engines)
    print(f"{names}: fits TensorRT {config.tensorrt_version} on compute capability {capability}")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(PreflightConfig)))
