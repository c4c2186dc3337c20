"""What a build may be asked for, and the check that the server would accept the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.program import UserError
from contract.repository import Profile, read_model_config
from contract.spec import MAX_BATCH_SIZE


class BuildOptionsError(UserError, ValueError):
    """The settings cannot give an engine that the server loads; found before the build, not by a failed load."""


@dataclass(frozen=True)
class BuildOptions:
    """Settings of TensorRT's builder."""

    min_batch: int = 1
    opt_batch: int = 16  # TensorRT picks the kernels that are fastest at this one: what a busy server's batches come to
    max_batch: int = MAX_BATCH_SIZE  # must be the server's max_batch_size
    workspace_mib: int | None = None  # scratch memory of a layer; by default all of the GPU's
    optimization_level: int = 3  # 0-5; TensorRT's default; 5 searches several times as long
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"  # others cost speed
    version_compatible: bool = False  # for later TensorRT too; the server then needs version-compatible=true
    # TensorRT-RTX alone: the GPUs, such as 8.9, that the engine is for; by default all that it builds for unasked.
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: Path = Path("runs/tensorrt_timing.cache")  # makes the next build of the same layers quick

    @property
    def profile(self) -> Profile:
        return Profile(self.min_batch, self.opt_batch, self.max_batch)


def check_profile(profile: Profile, model_config: Path) -> None:
    """Check that a profile is in order and ends at the config's max_batch_size.

    Raises BuildOptionsError, or RepositoryError for a configuration that cannot be read.
    """
    if not 1 <= profile.min <= profile.opt <= profile.max:
        raise BuildOptionsError(f"batch sizes must be 1 <= min <= opt <= max; got {profile}")
    if not model_config.is_file():
        raise BuildOptionsError(f"{model_config} does not exist; name the served model's with --model-config")
    if (served := read_model_config(model_config).max_batch_size) != profile.max:
        raise BuildOptionsError(
            f"the engine's largest batch is {profile.max}, but {model_config} has max_batch_size {served}: the server "
            f"would refuse to load it, or batches that it could run. Build with --max-batch {served} or change the file"
        )
