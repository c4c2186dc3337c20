"""What a sweep sets in a config.pbtxt: read from it, put into a copy of it, and printed as lines to paste into it.

A hand-written file is left to hands: protobuf's printer would drop every comment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.program import UserError
from contract.repository import RepositoryError, read_model_config

QUEUE_DELAY, INSTANCES = "queue_delay_us", "instances"  # settings beside the names of `parameters`


class ConfigError(UserError, ValueError):
    """A configuration has not what is to be set in it; the message names what it has."""


@dataclass(frozen=True)
class Settings:
    """What a sweep varies of a model's configuration."""

    queue_delay_us: int
    instances: int
    parameters: Mapping[str, str]  # all of the configuration, by name

    @property
    def columns(self) -> dict[str, str]:
        """Return every setting by name, as text."""
        return {QUEUE_DELAY: str(self.queue_delay_us), INSTANCES: str(self.instances), **self.parameters}


def read_config(path: Path) -> ModelConfig:
    """Read a configuration to sweep. Raises ConfigError for a broken file, or one that lacks what a sweep sets."""
    try:
        config = read_model_config(path)
    except RepositoryError as error:
        raise ConfigError(str(error)) from error
    if not config.HasField("dynamic_batching"):
        raise ConfigError(f"{path} has no dynamic_batching, which holds the queue delay; write dynamic_batching {{}}")
    if len(config.instance_group) != 1:
        raise ConfigError(f"{path} has {len(config.instance_group)} instance groups; the sweep sets the count of one")
    return config


def settings_of(config: ModelConfig) -> Settings:
    """Return the settings that a configuration has."""
    return Settings(
        queue_delay_us=config.dynamic_batching.max_queue_delay_microseconds,
        instances=config.instance_group[0].count or 1,  # absent stands for one
        parameters={name: value.string_value for name, value in sorted(config.parameters.items())},
    )


def with_settings(config: ModelConfig, settings: Settings) -> ModelConfig:
    """Return a copy of the configuration that has these settings."""
    changed = ModelConfig()
    changed.CopyFrom(config)
    changed.dynamic_batching.max_queue_delay_microseconds = settings.queue_delay_us
    changed.instance_group[0].count = settings.instances
    for name, value in settings.parameters.items():
        changed.parameters[name].string_value = value
    return changed


def fingerprint(config: ModelConfig) -> str:
    """Return the SHA-256 of all that `Settings` does not hold."""
    rest = ModelConfig()
    rest.CopyFrom(config)
    rest.dynamic_batching.ClearField("max_queue_delay_microseconds")
    rest.instance_group[0].ClearField("count")
    rest.ClearField("parameters")
    return hashlib.sha256(rest.SerializeToString(deterministic=True)).hexdigest()


def check_settings(path: Path, config: ModelConfig, settings: Settings) -> None:
    """Raise ConfigError for a parameter that the configuration lacks and for a delay that its server cannot bear."""
    known = set(settings_of(config).parameters)
    if unknown := sorted(set(settings.parameters) - known):
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise ConfigError(f"{path} has no parameter {', '.join(unknown)}; {has}")
    if settings.queue_delay_us and config.dynamic_batching.HasField("default_queue_policy"):
        raise ConfigError(
            f"{path} has a queue policy, and with a queue delay beside it merged batches slow the server down for good "
            "(issue 8870 of triton-inference-server/server); sweep --queue-delay-us 0, or delete the policy"
        )


def line_of(name: str, value: str) -> str:
    """Return the line of a config.pbtxt that gives a setting this value."""
    if name == QUEUE_DELAY:
        return f"dynamic_batching {{ max_queue_delay_microseconds: {value} }}"
    if name == INSTANCES:
        return f"instance_group [ {{ count: {value} }} ]"
    return f"parameters {{ key: {json.dumps(name)} value: {{ string_value: {json.dumps(value)} }} }}"
