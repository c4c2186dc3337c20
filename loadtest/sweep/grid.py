"""What a sweep is to measure: its command line and the grid that follows from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.repository import ONNX_NAME, PLAN_NAME, file_sha256, model_config_path, served_version
from contract.spec import MODEL_NAME
from loadtest.sweep.config import Settings, check_settings, settings_of
from loadtest.sweep.rows import SweepError

START_S = 3.5  # of a server, and its end: what the estimate counts
GENERATOR_S = 0.6  # a load generator's own start


@dataclass(frozen=True)
class NamedModel:
    """A model file under the name that its rows carry, such as its precision."""

    name: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> NamedModel:
        """Parse NAME=PATH. Raises SweepError."""
        name, _, path = text.partition("=")
        if not name or not path:
            raise SweepError(f"--model {text} is not NAME=PATH such as int8=model.onnx")
        return cls(name, Path(path))

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the file. Raises SweepError for a missing one."""
        try:
            return file_sha256(self.path)
        except OSError as error:
            raise SweepError(f"{self.path} cannot be read ({error.strerror}); make it with make export") from error


@dataclass(frozen=True)
class ParameterAxis:
    """One of the configuration's `parameters` and the values it is to have."""

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> ParameterAxis:
        """Parse NAME=VALUE,... Raises SweepError."""
        name, _, values = text.partition("=")
        if not name or "" in values.split(","):
            raise SweepError(f"--parameter {text} is not NAME=VALUE,... such as streams=1,2")
        return cls(name, tuple(values.split(",")))


@dataclass(frozen=True)
class SweepConfig:
    """Measure every combination on a fresh server, draw throughput against p99, choose; go on where a sweep stopped."""

    out: Path = Path("runs/sweep")
    repository: Path = Path("model_repository")
    faces: str = ""  # a manifest.csv or a folder of pictures; synthetic ones without it
    # By default the repository's own; the name is that of the rows, such as fp32=a.onnx int8=b.onnx.
    model: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=PATH ...")] = ()
    in_flight: tuple[int, ...] = (1, 4, 16, 64)
    queue_delay_us: tuple[int, ...] = (0, 500)  # the dynamic batcher's
    instances: tuple[int, ...] = (1, 2)
    # Of the model's configuration, by name, such as streams=1,2.
    parameter: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE,... ...")] = ()
    rounds: int = 3  # over the whole grid, so that what the machine does meanwhile hits all alike; medians count
    seconds: float = 2.0  # a measurement; p99 of few requests is rough, and the rounds make up for it
    warm_up_s: float = 0.5
    p99_limit_ms: float | None = None  # choose the most throughput within it; by default the knee
    choose_in_flight: int | None = None  # choose at this load; by default at any
    docker: bool = False  # the GPU server and its config.pbtxt, instead of the CPU server and configs/cpu.pbtxt

    @property
    def config_path(self) -> Path:
        """Return the configuration that the server reads, and that is swept."""
        return model_config_path(self.repository, cpu=not self.docker)

    @property
    def model_name(self) -> str:
        """Return how the file is called that the server loads."""
        return PLAN_NAME if self.docker else ONNX_NAME

    @property
    def own_version(self) -> Path:
        """Return the folder of the repository that the server serves."""
        return served_version(self.repository / MODEL_NAME)

    @property
    def models(self) -> tuple[NamedModel, ...]:
        named = tuple(NamedModel.parse(text) for text in self.model)
        return named or (NamedModel("own", self.own_version / self.model_name),)


@dataclass(frozen=True)
class GridPoint:
    """One combination of model file and settings, which gets a server of its own."""

    model: NamedModel
    settings: Settings


def points_of(config: SweepConfig, model_config: ModelConfig) -> list[GridPoint]:
    """Return the grid without its loads. Raises ConfigError for a setting that the configuration cannot have."""
    axes = [ParameterAxis.parse(text) for text in config.parameter]
    _check_axes(config, axes)
    names = [axis.name for axis in axes]
    base = settings_of(model_config).parameters
    values = itertools.product(*(axis.values for axis in axes))
    combinations = itertools.product(config.models, config.queue_delay_us, config.instances, list(values))
    points = [
        GridPoint(model, Settings(delay, count, {**base, **dict(zip(names, chosen, strict=True))}))
        for model, delay, count, chosen in combinations
    ]
    for point in points:
        check_settings(config.config_path, model_config, point.settings)
    return points


def _check_axes(config: SweepConfig, parameters: Sequence[ParameterAxis]) -> None:
    for what, values in (
        ("--model", [model.name for model in config.models]),
        ("--parameter", [axis.name for axis in parameters]),
        ("--in-flight", config.in_flight),
        ("--queue-delay-us", config.queue_delay_us),
        ("--instances", config.instances),
        *((f"--parameter {axis.name}", axis.values) for axis in parameters),
    ):
        if len(set(values)) < len(values) or (what != "--parameter" and not values):
            raise SweepError(f"{what} needs at least one value, and each once; got {' '.join(map(str, values))}")
    if min(config.in_flight) < 1 or min(config.instances) < 1 or min(config.queue_delay_us) < 0 or config.rounds < 1:
        raise SweepError("--in-flight, --instances and --rounds start at 1, --queue-delay-us at 0")


def in_rounds(points: Sequence[GridPoint], rounds: int) -> Iterator[tuple[int, GridPoint]]:
    """Yield every point once a round; every second round backwards, so that none is always the earlier one."""
    for number in range(1, rounds + 1):
        for point in points if number % 2 else reversed(points):
            yield number, point


def estimate_s(config: SweepConfig, *, servers: int, measurements: int) -> float:
    """Return roughly how long it takes on two cores."""
    return servers * START_S + measurements * (config.seconds + config.warm_up_s + GENERATOR_S)
