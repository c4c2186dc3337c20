"""What a sweep is to measure: its command line and the grid that follows from it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.repository import CPU_CONFIG_NAME
from contract.spec import MODEL_NAME
from loadtest.sweep.config import Settings, check_settings, settings_of
from loadtest.sweep.table import SweepError

START_S = 3.5  # of a server, and its end: what the estimate counts
GENERATOR_S = 0.6  # a load generator's own start


@dataclass(frozen=True)
class NamedModel:
    """A model file under the name that its rows carry, such as its precision."""

    name: str
    path: Path

    @classmethod
    def parse(cls, text: str) -> NamedModel:
        """Raises SweepError unless it is NAME=PATH."""
        name, _, path = text.partition("=")
        if not name or not path:
            raise SweepError(f"--model {text} is not NAME=PATH such as int8=model.onnx")
        return cls(name, Path(path))

    @property
    def sha256(self) -> str:
        """Raises SweepError for a missing file."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SweepError(f"{self.path} cannot be read ({error.strerror}); make it with make export") from error


@dataclass(frozen=True)
class ParameterAxis:
    """One of the configuration's `parameters` and the values it is to have."""

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> ParameterAxis:
        """Raises SweepError unless it is NAME=VALUE,..."""
        name, _, values = text.partition("=")
        if not name or "" in values.split(","):
            raise SweepError(f"--parameter {text} is not NAME=VALUE,... such as streams=1,2")
        return cls(name, tuple(values.split(",")))


@dataclass(frozen=True)
class SweepConfig:
    """Measure every combination on a fresh server, draw throughput against p99, choose; go on where a sweep stopped."""

    out: Path = Path("runs/sweep")
    repository: Path = Path("model_repository")
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
    apply: bool = False  # write the chosen settings into the configuration
    docker: bool = False  # the GPU server and its config.pbtxt, instead of the CPU server and configs/cpu.pbtxt

    @property
    def config_path(self) -> Path:
        """The configuration that the server reads, and that is swept."""
        return self.repository / MODEL_NAME / ("config.pbtxt" if self.docker else f"configs/{CPU_CONFIG_NAME}.pbtxt")

    @property
    def models(self) -> tuple[NamedModel, ...]:
        named = tuple(NamedModel.parse(text) for text in self.model)
        return named or (NamedModel("own", model_file(self.repository, docker=self.docker)),)


@dataclass(frozen=True)
class Server:
    """One combination that needs a server of its own."""

    model: NamedModel
    settings: Settings


def model_file(repository: Path, *, docker: bool) -> Path:
    """What the server loads: the file of the highest version."""
    folder = repository / MODEL_NAME
    versions = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return folder / str(max(versions, default=1)) / ("model.plan" if docker else "model.onnx")


def servers_of(config: SweepConfig, model_config: ModelConfig) -> list[Server]:
    """The grid without its loads. Raises ConfigError for a setting that the configuration cannot have."""
    axes = [ParameterAxis.parse(text) for text in config.parameter]
    _check_axes(config, axes)
    names = [axis.name for axis in axes]
    base = settings_of(model_config).parameters
    values = itertools.product(*(axis.values for axis in axes))
    combinations = itertools.product(config.models, config.queue_delay_us, config.instances, list(values))
    servers = [
        Server(model, Settings(delay, count, {**base, **dict(zip(names, chosen, strict=True))}))
        for model, delay, count, chosen in combinations
    ]
    for server in servers:
        check_settings(config.config_path, model_config, server.settings)
    return servers


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


def in_rounds(servers: Sequence[Server], rounds: int) -> Iterator[tuple[int, Server]]:
    """Every server once a round; every second round backwards, so that no combination is always the earlier one."""
    for number in range(1, rounds + 1):
        for server in servers if number % 2 else reversed(servers):
            yield number, server


def estimate_s(config: SweepConfig, *, servers: int, measurements: int) -> float:
    """Roughly how long it takes on two cores."""
    return servers * START_S + measurements * (config.seconds + config.warm_up_s + GENERATOR_S)
