"""What any Triton server is started with: where it listens, what it serves, and how it ends."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from serving.errors import SetupError

LOOPBACK = "127.0.0.1"
MIN_OPEN_FILES = 1024  # below, a few hundred idle connections would leave the server without a descriptor to accept one
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Launch:
    """A command line that becomes the server, with its variables and the folder that it runs in."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    cleanup: tuple[tuple[str, ...], ...] = ()  # commands to run after it has ended
    folder: Path = PROJECT


@dataclass(frozen=True)
class Ports:
    """Where a server listens on the loopback interface; 0 stands for any free port."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0

    @property
    def http_url(self) -> str:
        return f"http://{LOOPBACK}:{self.http}"

    @property
    def grpc_url(self) -> str:
        return f"grpc://{LOOPBACK}:{self.grpc}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.metrics}/metrics"

    def chosen(self) -> Ports:
        """Return the same, every 0 replaced, all seen free at one moment. Raises SetupError for one that is taken."""
        with ExitStack() as held:
            free = {name: _bind(held, name, getattr(self, name)) for name in ("http", "grpc", "metrics")}
            return replace(self, **free)


def _bind(held: ExitStack, name: str, port: int) -> int:
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one given back a moment ago is free
    try:
        listener.bind((LOOPBACK, port))
    except OSError as error:
        raise SetupError(
            f"{name} port {port} cannot be used ({(error.strerror or 'error').lower()}); stop what listens there or "
            f"choose another with --{name}-port, 0 for any free one"
        ) from None
    return int(listener.getsockname()[1])


def server_arguments(
    repository: Path, *, model_control: bool, verbose: bool, exit_timeout_s: float, config_name: str
) -> list[str]:
    """Return the options of tritonserver that hold wherever it runs; `repository` is as the server will see it."""
    arguments = [
        f"--model-repository={repository}",
        # The configurations are complete, and completing them would start every Python model once more just to ask it.
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={round(exit_timeout_s)}",
        f"--log-verbose={int(verbose)}",
    ]
    if config_name:
        arguments.append(f"--model-config-name={config_name}")
    if model_control:
        arguments += ["--model-control-mode=explicit", "--load-model=*"]
    return arguments


def raise_open_files_limit() -> None:
    """Let what is started here open as many files as the system allows. Raises SetupError where these are too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MIN_OPEN_FILES:
        raise SetupError(
            f"only {hard} files may be open at a time, and each connection is one; allow {MIN_OPEN_FILES} or more with "
            "ulimit -n, or LimitNOFILE= of systemd"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
