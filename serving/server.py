"""A real Triton server on this machine, as a context manager.

with TritonServer(Path("model_repository")) as server:
    print(server.grpc_url)
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from contract.repository import CPU_CONFIG_NAME, ONNX_NAME, model_config_path, served_version
from contract.spec import GRPC_PORT, HTTP_PORT, METRICS_PORT, MODEL_NAME
from serving import docker
from serving.errors import SetupError, StartError
from serving.installation import DEFAULT_VENV, REPOSITORY, Installation, find_installation
from serving.launch import Launch, Ports, raise_open_files_limit, server_arguments
from serving.lock import Lock, withdraw
from serving.preflight import check_engines, server_compute_capabilities
from serving.readiness import check_models, is_ready
from serving.supervision.guard import Guard
from serving.supervision.leftovers import close_shared_memory, remove_leftovers
from serving.supervision.log import open_log, reason_in, rotate
from serving.versions import TENSORRT_VERSION


@dataclass(frozen=True)
class ServerOptions:
    """How the server is started. A port of 0 stands for any free one."""

    http_port: int = HTTP_PORT
    grpc_port: int = GRPC_PORT
    metrics_port: int = METRICS_PORT
    log: Path = Path("runs/serve/triton.log")
    verbose: bool = False  # the server logs every request
    open: bool = False  # no key: whoever reaches a port, such as a web page in a browser here, may do anything
    explicit_models: bool = False  # load and unload models by request only, as promotion does
    docker: bool = False  # the GPU server: Triton's container on the engine, instead of the CPU server of `venv`
    arguments: tuple[str, ...] = ()  # further options of tritonserver, as they are; paths in them must be absolute
    venv: Path = DEFAULT_VENV
    start_timeout_s: float = 60.0  # a quiet machine needs 3
    stop_timeout_s: float = 10.0  # for requests in flight, before they are broken off


ANY_PORTS = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)


class TritonServer:
    """Started and warmed up on entering, stopped with all its processes on leaving.

    Raises SetupError or StartError, each one line. Enter it from a thread that outlives the server: where the system
    has setpriv, the server ends when that thread does, even by kill -9.
    """

    def __init__(self, repository: Path, options: ServerOptions = ANY_PORTS) -> None:
        self.repository = repository
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup: tuple[tuple[str, ...], ...] = ()
        self._ports = Ports(options.http_port, options.grpc_port, options.metrics_port)
        self._lock = None if options.open else Lock()

    @property
    def http_url(self) -> str:
        return self._ports.http_url

    @property
    def grpc_url(self) -> str:
        return self._ports.grpc_url

    @property
    def metrics_url(self) -> str:
        return self._ports.metrics_url

    @property
    def headers(self) -> dict[str, str]:
        """Return what opens the server on either protocol; the clients of this project find it by themselves here."""
        return self._lock.headers if self._lock else {}

    @property
    def pid(self) -> int:
        """Return the process id of the running server; its children belong to the process group of the same number."""
        return self._running().pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until every model has answered; again at the same ports and with the same key."""
        raise_open_files_limit()
        remove_leftovers()
        launch = self._container() if self.options.docker else self._local()
        with open_log(self.options.log) as log:
            self._cleanup = launch.cleanup
            self._process = subprocess.Popen(
                launch.arguments,
                env=launch.environment,
                cwd=launch.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is ours to handle, and stragglers can be ended together
                umask=0o077,
            )
        try:
            self._leave_key()
            self._wait_until_ready()
            close_shared_memory(self._ports.grpc)
            if self._lock:
                self._lock.hide(self.pid)
        except BaseException:
            self.stop()
            raise

    def tidy(self) -> None:
        """Keep what a running server makes small and private; to be called again and again. Raises OSError."""
        close_shared_memory(self._ports.grpc)
        rotate(self.options.log)

    def guard(self) -> Guard:
        """Return a watcher of the running server."""
        return Guard(self.pid, self.http_url, self.headers, models_may_go=self.options.explicit_models)

    def wait(self) -> int:
        """Block until the server ends by itself; its exit status."""
        return wait_for(self._running())

    def stop(self) -> None:
        """Let requests in flight finish, then end every process of the server; stopping twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.options.stop_timeout_s + 5)
        finally:  # also when a second Ctrl-C comes meanwhile
            self._end(process)
            if self._lock:
                for port in (self._ports.http, self._ports.grpc):
                    withdraw(port)

    def kill(self) -> None:
        """End it as a crash would, with kill -9; one that does not run needs none."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the server, or a backend process that outlived it
        process.wait()
        for command in self._cleanup:
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StartError("the server is not running; start it first")
        return self._process

    def _local(self) -> Launch:
        """The server of .venv-triton, on the CPU."""
        _check_repository(self.repository)
        arguments = self._arguments(REPOSITORY, CPU_CONFIG_NAME) + (self._lock.arguments if self._lock else [])
        return self._installation.launch(self.repository, arguments, self._choose_ports())

    @cached_property
    def _installation(self) -> Installation:
        return find_installation(self.options.venv)

    def _container(self) -> Launch:
        """Triton's container, on the engine."""
        engines = check_engines(
            self.repository,
            tensorrt_version=TENSORRT_VERSION,
            compute_capabilities=server_compute_capabilities(),
        )
        docker.build("server")
        return docker.launch(
            self.repository,
            self._arguments(docker.MODELS, ""),
            self._choose_ports(),
            key=self._lock.key if self._lock else "",
            version_compatible=any(engine.manifest.version_compatible for engine in engines),
        )

    def _arguments(self, repository: Path, config_name: str) -> list[str]:
        arguments = server_arguments(
            repository,
            config_name=config_name,
            model_control=self.options.explicit_models,
            verbose=self.options.verbose,
            exit_timeout_s=self.options.stop_timeout_s,
        )
        return [*arguments, *self.options.arguments]

    def _choose_ports(self) -> Ports:
        self._ports = self._ports.chosen()
        return self._ports

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.options.start_timeout_s
        while not is_ready(self.http_url):
            if (status := self._running().poll()) is not None:
                raise StartError(f"the server ended with status {status}: {reason_in(self.options.log)}")
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {self.options.start_timeout_s:.0f} s: {reason_in(self.options.log)}")
            time.sleep(0.02)
        check_models(self.http_url, self.headers)

    def _leave_key(self) -> None:
        for port in (self._ports.http, self._ports.grpc):
            if self._lock:
                self._lock.publish(port)
            else:
                withdraw(port)  # of a server that was killed


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process so that a signal is never overlooked; return its exit status.

    Python calls its handlers between two steps of the program: one that arrives just before a wait without end would
    be handled after it.
    """
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1.0)


def _check_repository(repository: Path) -> None:
    if not model_config_path(repository, cpu=False).exists():
        raise SetupError(f"{repository} is no model repository: it has no {MODEL_NAME}/config.pbtxt")
    if not (model := served_version(repository / MODEL_NAME) / ONNX_NAME).exists():
        raise SetupError(f"{model} is missing; make it with make export")
