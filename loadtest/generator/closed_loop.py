"""A light load generator for comparisons: what it costs the server's cores is small and known.

from loadtest.generator.closed_loop import grpc_load

locust (loadtest.locustfile) is for tests of behaviour under load; a request costs it several times the processor time,
which on the server's own cores would be measured as the server's.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc
from numpy.typing import NDArray

from contract.headers import local_headers
from contract.program import UserError
from contract.spec import Images, check_images
from loadtest.generator.connections import GRPC_OPTIONS
from loadtest.generator.payloads import check_grpc_answer, encoded_request, shared_request, tensor_request
from loadtest.generator.process import Job

PROJECT = Path(__file__).resolve().parents[2]


class LoadError(UserError, RuntimeError):
    """The load could not be made at all; the message has the generator's own last words."""


@dataclass(frozen=True)
class Load:
    """What was measured within the window, which begins after the warm-up."""

    latencies_ms: NDArray[np.float64]  # of the valid answers
    seconds: float
    errors: Mapping[str, int]  # by message
    cpu_s: float  # processor time of the generator's process
    answered: int  # valid answers at any time, warm-up and stragglers included

    @property
    def throughput(self) -> float:
        """Valid answers a second, which are images a second: every request carries one."""
        return len(self.latencies_ms) / self.seconds

    @property
    def p50_ms(self) -> float:
        return self._percentile(50)

    @property
    def p99_ms(self) -> float:
        return self._percentile(99)

    @property
    def cpu_ms_per_image(self) -> float:
        """What the generator itself took of the cores, user and system, for a request."""
        return self.cpu_s * 1e3 / len(self.latencies_ms) if len(self.latencies_ms) else math.nan

    def _percentile(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else math.nan


def grpc_load(
    url: str,
    faces: Images,
    *,
    in_flight: int,
    seconds: float,
    warm_up_s: float = 1.0,
    shared_memory: bool = False,
    encoded: Sequence[bytes] | None = None,
) -> Load:
    """Run a closed loop on our server: `in_flight` requests of one image, every answer checked for shape and numbers.

    faces: uint8 [N, 128, 128, 3], sent in turn; with `shared_memory` written there once and only named in requests.
    encoded: image files, sent to the ensemble instead of the faces. Raises LoadError where nothing can be measured.
    """
    authority = _authority(url, "grpc")
    with ExitStack() as stack:
        if encoded is not None:
            requests = [encoded_request(data) for data in encoded]
        elif shared_memory:
            requests = stack.enter_context(_placed_in_shared_memory(authority, check_images(faces)))
        else:
            requests = [tensor_request(face) for face in check_images(faces)]
        return _run(authority, requests, check_grpc_answer, in_flight=in_flight, seconds=seconds, warm_up_s=warm_up_s)


def grpc_open_loop(url: str, faces: Images, *, rate_per_s: float, seconds: float, warm_up_s: float = 1.0) -> Load:
    """Run an open loop on our server: evenly spaced requests of one image, latency from when each should have left."""
    if not rate_per_s > 0:
        raise ValueError(f"rate_per_s must be above 0, got {rate_per_s}")
    requests = [tensor_request(face) for face in check_images(faces)]
    return _run(
        _authority(url, "grpc"),
        requests,
        check_grpc_answer,
        rate_per_s=rate_per_s,
        seconds=seconds,
        warm_up_s=warm_up_s,
    )


def http_load(
    url: str,
    bodies: Sequence[bytes],
    headers: Mapping[str, str],
    check: Callable[[bytes], None],
    *,
    in_flight: int,
    seconds: float,
    warm_up_s: float = 1.0,
) -> Load:
    """Run a closed loop of POST requests on any HTTP/1.1 server; `url` has the path.

    check: raises for a body that is no valid answer. It runs in the generator's process, so it must be a function of a
    module, found there by its name. Raises LoadError where nothing can be measured.
    """
    authority, path = _authority(url, "http"), urlsplit(url).path or "/"
    headers = {**local_headers(authority), **headers}
    lines = [f"POST {path} HTTP/1.1", f"Host: {authority}", *(f"{name}: {value}" for name, value in headers.items())]
    return _run(
        authority,
        bodies,
        check,
        http_head="".join(f"{line}\r\n" for line in lines),
        in_flight=in_flight,
        seconds=seconds,
        warm_up_s=warm_up_s,
    )


def _run(
    authority: str,
    payloads: Sequence[bytes],
    check: Callable[[bytes], None],
    *,
    seconds: float,
    warm_up_s: float,
    in_flight: int = 1,
    rate_per_s: float | None = None,
    http_head: str | None = None,
) -> Load:
    sizes = tuple(map(len, payloads))
    job = Job(authority, _importable_name(check), sizes, http_head, in_flight, rate_per_s, seconds, warm_up_s)
    process = subprocess.run(
        [sys.executable, "-m", "loadtest.generator.process"],
        input=b"".join([json.dumps(asdict(job)).encode(), b"\n", *payloads]),
        capture_output=True,
        cwd=PROJECT,
        check=False,
    )
    if process.returncode != 0:
        words = process.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise LoadError(f"no load on {authority}: {words[-1]}")
    found = json.loads(process.stdout)
    return Load(np.asarray(found["latencies_ms"]), seconds, found["errors"], found["cpu_s"], found["answered"])


def _importable_name(check: Callable[[bytes], None]) -> str:
    module, name = check.__module__, check.__qualname__
    if module == "__main__":
        module = getattr(sys.modules["__main__"].__spec__, "name", module)
    if module == "__main__" or "<" in name:
        raise ValueError(f"the check {name} must be a function of an importable module, since another process calls it")
    return f"{module}:{name}"


def _authority(url: str, scheme: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != scheme or not parts.port:
        raise ValueError(f"expected {scheme}://host:port, got {url}")
    return parts.netloc


@contextmanager
def _placed_in_shared_memory(authority: str, faces: Images) -> Iterator[list[bytes]]:
    """Requests that name a face of a region registered with the server meanwhile."""
    region = SharedMemory(create=True, size=faces.nbytes)
    try:
        np.ndarray(faces.shape, np.uint8, region.buf)[:] = faces
        with tritonclient.grpc.InferenceServerClient(authority, channel_args=GRPC_OPTIONS) as server:
            key = local_headers(authority)
            server.register_system_shared_memory(region.name, f"/{region.name}", faces.nbytes, headers=key)
            try:
                yield [shared_request(region.name, face.nbytes, n * face.nbytes) for n, face in enumerate(faces)]
            finally:
                server.unregister_system_shared_memory(region.name, headers=key)
    finally:
        region.close()
        region.unlink()
