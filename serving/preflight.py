"""Would the server load these engines? Compares each plan's manifest with the server and the GPUs that are about to.

python -m serving.preflight --repository model_repository

TensorRT itself refuses a plan only after the server has started, and names neither version nor command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from contract import program
from contract.gpu import GpuError, visible_gpus
from contract.repository import (
    ONNX_NAME,
    PLAN_NAME,
    EngineManifest,
    EngineManifestError,
    RepositoryError,
    file_sha256,
    read_engine_manifest,
    read_model_config,
    served_version,
)
from serving.errors import PreflightError, SetupError
from serving.versions import TENSORRT_VERSION


@dataclass(frozen=True)
class PreflightConfig:
    """Compare every engine of a repository with the server that is about to load it."""

    repository: Path = Path("model_repository")
    library: str = "tensorrt"  # that the server loads engines with: Triton's container has TensorRT, not TensorRT-RTX
    tensorrt_version: str = TENSORRT_VERSION  # of that library
    compute_capability: str | None = None  # of its GPU, such as 8.9; by default of those that CUDA sees here


@dataclass(frozen=True)
class Engine:
    """A version of a model in the repository, and what its configuration wants of the plan."""

    plan: Path
    max_batch_size: int

    @property
    def manifest(self) -> EngineManifest:
        """Read what it was built for. Raises EngineManifestError."""
        return read_engine_manifest(self.plan)


def check_engines(
    repository: Path, *, tensorrt_version: str, compute_capabilities: Sequence[str], library: str = "tensorrt"
) -> list[Engine]:
    """Return the engines, all of which the server would load on each of its GPUs.

    Raises PreflightError with a line for each problem.
    """
    engines = list(find_engines(repository))
    if not engines:
        raise PreflightError(f"{repository} has no model with platform tensorrt_plan; serve it on the CPU: make serve")
    problems = [
        f"{engine.plan}: {problem}"
        for engine in engines
        for problem in _problems(engine, library, tensorrt_version, compute_capabilities)
    ]
    if problems:
        raise PreflightError("\n".join(problems))
    return engines


def find_engines(repository: Path) -> Iterator[Engine]:
    """Yield the plan that the server takes of each model for TensorRT: that of its highest version.

    Raises PreflightError.
    """
    for path in sorted(repository.glob("*/config.pbtxt")):
        try:
            config = read_model_config(path)
        except RepositoryError as error:
            raise PreflightError(str(error)) from None
        if config.platform == "tensorrt_plan":
            yield Engine(served_version(path.parent) / PLAN_NAME, config.max_batch_size)


def _problems(
    engine: Engine, library: str, tensorrt_version: str, compute_capabilities: Sequence[str]
) -> Iterator[str]:
    how = _make_arguments(engine, library, tensorrt_version)
    rebuild = f"build it again with make engine{how}"
    if not engine.plan.exists():
        yield f"does not exist; build it with make engine{how}"
        return
    try:
        manifest = engine.manifest
    except EngineManifestError as error:
        yield f"{error}{how}"
        return
    if manifest.library != library:
        how = _make_arguments(engine, library, tensorrt_version, f"LIBRARY={library}")
        yield f"built with {manifest.library}, this server loads engines of {library}; build it with make engine{how}"
        return
    if manifest.tensorrt_version != tensorrt_version:
        yield f"built with TensorRT {manifest.tensorrt_version}, the server has {tensorrt_version}; {rebuild}"
    for capability in dict.fromkeys(compute_capabilities):
        if not _runs_on(manifest, capability):
            yield (
                f"built for compute capability {manifest.compute_capability} (hardware compatibility "
                f"{manifest.hardware_compatibility}), a GPU of the server has {capability}; hide that GPU with "
                f"CUDA_VISIBLE_DEVICES, or {rebuild}"
            )
    if manifest.profile.min > 1 or manifest.profile.max < engine.max_batch_size:
        how = _make_arguments(engine, library, tensorrt_version, f"ARGS='--max-batch {engine.max_batch_size}'")
        yield (
            f"built for batches of {manifest.profile.min} to {manifest.profile.max}, config.pbtxt has max_batch_size "
            f"{engine.max_batch_size}; change config.pbtxt, or build it again with make engine{how}"
        )
    model = engine.plan.with_name(ONNX_NAME)
    if model.exists() and file_sha256(model) != manifest.onnx_sha256:
        yield f"built from another model than the {model.name} beside it; {rebuild}"


def _make_arguments(engine: Engine, library: str, tensorrt_version: str, *arguments: str) -> str:
    """What follows `make engine` where this engine is built; which of the two ways is open here is not known."""
    version = engine.plan.parent.name
    given = [f"VERSION={version}"] if version != "1" else []
    ways = f" (DOCKER=1 builds in Triton's container; without, TensorRT {tensorrt_version} must be installed here)"
    return "".join(f" {part}" for part in (*given, *arguments)) + (ways if library == "tensorrt" else "")


def _runs_on(manifest: EngineManifest, compute_capability: str) -> bool:
    if manifest.hardware_compatibility == "ampere_plus":  # from Ampere, which is 8.0, upwards
        return float(compute_capability) >= 8.0
    return compute_capability in manifest.compute_capability.split(", ")


def server_compute_capabilities() -> list[str]:
    """Return that of each GPU that CUDA sees here, such as 8.9: Triton loads an engine on all of them.

    Raises SetupError where there is none.
    """
    try:
        return [gpu.compute_capability for gpu in visible_gpus()]
    except GpuError as error:
        raise SetupError(f"{error}; without a GPU, serve on the CPU with make serve") from None


def main(config: PreflightConfig) -> None:
    given = config.compute_capability
    capabilities = [given] if given else server_compute_capabilities()
    engines = check_engines(
        config.repository,
        library=config.library,
        tensorrt_version=config.tensorrt_version,
        compute_capabilities=capabilities,
    )
    names, kinds = ", ".join(str(engine.plan) for engine in engines), ", ".join(dict.fromkeys(capabilities))
    print(f"{names}: fits TensorRT {config.tensorrt_version} on compute capability {kinds}")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(PreflightConfig)))
