"""A Triton model repository on disk: its configurations, versions and files, and what an engine in it was built for.

Needs only what Triton's image has; `read_model_config` alone needs tritonclient too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.files import replacing
from contract.program import UserError
from contract.spec import MODEL_NAME

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

CPU_CONFIG_NAME = "cpu"  # configs/cpu.pbtxt: what a server started with --model-config-name=cpu reads
ONNX_NAME, PLAN_NAME = "model.onnx", "model.plan"  # the files of a version, as Triton and configs/cpu.pbtxt expect them


class RepositoryError(UserError, ValueError):
    """A model repository is not as a server needs it; the message names the file."""


class EngineManifestError(RepositoryError):
    """An engine's manifest is missing or broken; the message says how to make it."""


def model_config_path(repository: Path, *, cpu: bool) -> Path:
    """Return the configuration of AgeGenderNet that the CPU server, or else the GPU server, reads."""
    folder = repository / MODEL_NAME
    return folder / "configs" / f"{CPU_CONFIG_NAME}.pbtxt" if cpu else folder / "config.pbtxt"


def read_model_config(path: Path) -> ModelConfig:
    """Parse a config.pbtxt into the server's own message. Raises RepositoryError for a missing or broken file."""
    from google.protobuf import text_format  # type: ignore[import-untyped, unused-ignore]
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except OSError as error:
        raise RepositoryError(f"{path} cannot be read ({error.strerror}); a served model has one") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{path} is not a model configuration: {error}") from error


def version_numbers(model_folder: Path) -> list[int]:
    """List the versions of a model in order: as for the server, folders named by a number without leading zeros.

    model_folder: such as model_repository/agegendernet; one that does not exist has no versions.
    """
    names = [path.name for path in model_folder.iterdir() if path.is_dir()] if model_folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal() and not name.startswith("0"))


def served_version(model_folder: Path) -> Path:
    """Return the folder of the highest version, which the server serves; that of version 1 where there is none yet."""
    return model_folder / str(max(version_numbers(model_folder), default=1))


def copy_with_model(repository: Path, target: Path, model: Path, *, name: str = ONNX_NAME) -> Path:
    """Copy a repository's code and configurations to `target`, where AgeGenderNet's served file is `model`.

    name: what the file is called there; an engine, PLAN_NAME, brings its manifest. Returns `target`. Raises OSError.
    """
    shutil.copytree(repository, target, ignore=shutil.ignore_patterns(ONNX_NAME, "*.plan*", "__pycache__"))
    copied = served_version(target / MODEL_NAME) / name
    shutil.copyfile(model, copied)
    if name == PLAN_NAME:
        shutil.copyfile(engine_manifest_path(model), engine_manifest_path(copied))
    return target


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Profile:
    """Batch sizes of the engine's one optimization profile."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class EngineManifest:
    """What an engine was built from and for, written beside it as model.plan.json.

    A plan is bound to TensorRT's version and the GPU; whoever loads it compares this first, because TensorRT's own
    refusal names neither.
    """

    library: str  # tensorrt, which the container has, or tensorrt-rtx
    tensorrt_version: str  # of that library
    gpu_name: str
    compute_capability: str  # as NVIDIA writes it: 8.6; of TensorRT-RTX all that it is for: 8.6, 8.9
    onnx_sha256: str
    profile: Profile
    precision: str
    layer_types: dict[str, int]  # of the parsed network, before the build
    convolution_types: dict[str, int]
    layer_precisions: dict[str, int]  # of the built engine, as its inspector says; empty where there was no GPU
    convolution_precisions: dict[str, int]
    hardware_compatibility: str
    version_compatible: bool
    built_at: str  # ISO 8601, UTC


def engine_manifest_path(plan: Path) -> Path:
    """Return where the manifest of this engine lies."""
    return plan.with_name(f"{plan.name}.json")


def write_engine_manifest(manifest: EngineManifest, plan: Path) -> Path:
    """Write the manifest beside its engine in one step; return its path."""
    path = engine_manifest_path(plan)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return path


def read_engine_manifest(plan: Path) -> EngineManifest:
    """Read the manifest beside an engine. Raises EngineManifestError."""
    path = engine_manifest_path(plan)
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        profile = Profile(**values["profile"])
        if not all(type(batch) is int for batch in astuple(profile)):
            raise TypeError(f"{profile} has a batch size that is no number")
        return EngineManifest(**values | {"profile": profile})
    except FileNotFoundError:
        raise EngineManifestError(
            f"{path} does not exist, so nobody knows what the engine was built for; build it again with make engine"
        ) from None
    except (KeyError, TypeError, ValueError) as error:  # ValueError: neither JSON nor UTF-8
        raise EngineManifestError(
            f"{path} is not an engine's manifest ({type(error).__name__}: {error}); build it again with make engine"
        ) from error
