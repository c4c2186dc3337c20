"""TensorRT and TensorRT-RTX: one API in two packages. What differs between them for a build stands here alone.

TensorRT builds on the GPU that will serve, for the container's `tensorrt` backend. TensorRT-RTX builds on any machine,
for GeForce and RTX cards and its own runtime; its kernels are compiled where the engine is loaded.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from contract.program import UserError
from convert.engine.options import BuildOptions, BuildOptionsError

Library = Literal["tensorrt", "tensorrt-rtx"]


class LibraryUnavailableError(UserError, RuntimeError):
    """The library is not installed; the message says where to build, or how to install it."""


@dataclass(frozen=True)
class Traits:
    """What a library is called, and what it does that the other one does not."""

    title: str
    module: str
    remedy: str  # where it is not installed
    builds_on_gpu: bool  # for that GPU, with a timing cache of its kernels, and shows the engine to the inspector
    older_gpus: tuple[str, ...] = ()  # compute capabilities that it builds for only when asked to


TRAITS: dict[Library, Traits] = {
    "tensorrt": Traits(
        "TensorRT",
        "tensorrt",
        "build in the server's container with make engine DOCKER=1",
        builds_on_gpu=True,
    ),
    "tensorrt-rtx": Traits(
        "TensorRT-RTX",
        "tensorrt_rtx_bindings",
        "make engine LIBRARY=tensorrt-rtx installs it",
        builds_on_gpu=False,
        older_gpus=("7.5",),  # Turing multiplies no float32 matrices there, and the heads are float32
    ),
}
_selected: Library = "tensorrt"


def select(library: Library) -> None:
    """Choose the library that convert.engine.builder imports. Raises LibraryUnavailableError where it has another.

    A process has one library, as it has one of NVIDIA's loggers: the builder's classes derive from the library's.
    """
    global _selected
    if library != _selected and "convert.engine.builder" in sys.modules:
        raise LibraryUnavailableError(f"this process builds with {selected().title}; use {library} in one of its own")
    _selected = library


def selected() -> Traits:
    """Return the traits of the selected library."""
    return TRAITS[_selected]


def load() -> ModuleType:
    """Import the selected library. Raises LibraryUnavailableError."""
    traits = selected()
    try:
        return importlib.import_module(traits.module)
    except ModuleNotFoundError as error:
        raise LibraryUnavailableError(f"the package {error.name!r} is not installed; {traits.remedy}") from error


def check_options(options: BuildOptions, library: Library) -> None:
    """Raise BuildOptionsError for settings that the library does not have."""
    if TRAITS[library].builds_on_gpu:
        if options.compute_capabilities:
            raise BuildOptionsError(
                "--compute-capabilities is TensorRT-RTX's: TensorRT builds for the GPU of this machine, and with "
                "--hardware-compatibility for others too"
            )
    elif options.hardware_compatibility != "none" or options.version_compatible:
        raise BuildOptionsError(
            "--hardware-compatibility and --version-compatible are TensorRT's: an engine of TensorRT-RTX is for every "
            "GPU of --compute-capabilities, and for the version of TensorRT-RTX that built it"
        )
