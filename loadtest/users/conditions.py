"""Under which conditions a load test was measured: without them its numbers mean nothing."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import locust  # before clients: it makes the standard library cooperative

# isort: split
from clients import FaceAttributesClient
from loadtest.faces import Pictures
from loadtest.hardware import describe_hardware
from loadtest.users.recording import Recording

LOAD_AVERAGE = os.getloadavg()[0]  # when the program started: what else the machine was doing
PACKAGES = ("gevent", "grpcio", "urllib3", "numpy")


def load_side(options: Any, users: Iterable[str], pictures: Pictures, recording: Recording) -> dict[str, str]:
    """Say what was sent, how often, and for how long."""
    count = options.num_users
    who = f"{count} user{'' if count == 1 else 's'} ({', '.join(sorted(users))})"
    peak = "" if options.shape == "steady" else f"{options.shape} up to "
    rate = f"{count * options.rate:g} requests/s of {who}, {options.arrivals} arrivals"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load": f"open loop, {peak}{rate}" if options.rate > 0 else f"closed loop, {peak}{who}, one request each",
        "measured": f"{recording.window.length_s:.1f} s after {options.warm_up_s:g} s of warm-up",
        "requests": f"one image each, deadline {options.timeout_s:g} s, never repeated",
        "pictures": pictures.description,
        "load generator": f"locust with {recording.workers or 'no'} workers",
    }


def client_side() -> dict[str, str]:
    """Return the machine that makes the load, the server's too where the address is 127.0.0.1, and its software."""
    versions = ", ".join([f"locust {locust.__version__}", *(f"{name} {version(name)}" for name in PACKAGES)])
    return {
        "hardware": f"{describe_hardware()}; load average before {LOAD_AVERAGE:.1f}",
        "client software": f"Python {platform.python_version()}, {versions}; {platform.system()} {platform.release()}",
    }


def server_side(client: FaceAttributesClient, models: Iterable[str]) -> dict[str, str]:
    """Return the server and the configuration of each model as it is in force. Raises FaceAttributesError."""
    health = client.health()
    configs = [client.model_config(name) for name in models]
    versions = {model.name: f" version {model.version}" for model in health.models}
    return {
        "server": f"{health.server} {health.version} at {client.url}",
        "model": "; ".join(f"{c['name']}{versions.get(c['name'], '')}, {_kind(c)}" for c in configs),
        "batch settings": "; ".join(f"{c['name']}: {_batching(c)}" for c in configs),
    }


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("backend") or config.get("platform"))


def _batching(config: Mapping[str, Any]) -> str:
    instances = [f"{group['count']} x {group['kind']}" for group in config.get("instance_group", [])]
    parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
    parts = {
        "max_batch_size": config["max_batch_size"],
        "dynamic_batching": _set(config["dynamic_batching"]) if "dynamic_batching" in config else "off",
        "instances": ", ".join(instances),
        **parameters,
    }
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in parts.items())


def _set(value: Any) -> Any:
    """Without the fields that stand at their zero, which gRPC and HTTP spell differently."""
    if not isinstance(value, dict):
        return value
    kept = {name: _set(inner) for name, inner in value.items()}
    return {name: inner for name, inner in kept.items() if inner not in (0, "0", "", [], {}, False)}
