"""The measurements of one round, each a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from contract.spec import ENSEMBLE_NAME, MODEL_NAME
from loadtest.bench.engine_speed import benchmark_app, in_process
from loadtest.faces import Pictures
from loadtest.generator.closed_loop import Load, grpc_load, grpc_open_loop, http_load
from loadtest.generator.payloads import check_http_answer, http_encoded_requests, http_tensor_requests
from loadtest.processes import processor_time_s

BENCHMARK_APP, IN_PROCESS, SHARED_MEMORY = "benchmark_app", "in process", "gRPC shared memory"
GRPC, HTTP, GRPC_ENCODED, HTTP_ENCODED = "gRPC tensor", "HTTP tensor", "gRPC encoded", "HTTP encoded"
OPEN_LOOP, START = "gRPC tensor, open loop", "start to first answer"
LADDER = (BENCHMARK_APP, IN_PROCESS, SHARED_MEMORY, GRPC, HTTP, GRPC_ENCODED, HTTP_ENCODED)

ALONE, MANY = 1, 16  # requests in flight
OPEN_LOOP_SHARE = 0.8  # of the capacity measured a moment before
WARM_UP_S = 0.5


@dataclass(frozen=True)
class Row:
    """One measurement; what does not apply to it is not a number."""

    what: str
    in_flight: int = 0
    images_per_s: float = np.nan
    p50_ms: float = np.nan
    p99_ms: float = np.nan
    errors: int = 0
    client_cpu_ms: float = np.nan  # processor time per image, user and system
    server_cpu_ms: float = np.nan
    seconds: float = np.nan
    precision: str = ""
    round: int = 0


@dataclass(frozen=True)
class RunningServer:
    """Where a server answers, its process, and how long it took to answer first."""

    grpc_url: str
    http_url: str
    pid: int
    start_s: float


def engine_rows(model: Path, seconds: float) -> list[Row]:
    """Measure without a server: OpenVINO's own program, then a loop in a Python process."""
    speed = in_process(model, seconds=seconds / 2)  # for each of the two
    return [
        Row(BENCHMARK_APP, MANY, benchmark_app(model, seconds=seconds), seconds=seconds),
        Row(IN_PROCESS, MANY, speed.throughput, seconds=seconds / 2),
        Row(IN_PROCESS, ALONE, 1e3 / speed.p50_ms, speed.p50_ms, speed.p99_ms, seconds=seconds / 2),
    ]


def served_rows(server: RunningServer, pictures: Pictures, seconds: float) -> list[Row]:
    """Measure every way through the server, alone and many in flight, and the open loop at a share of its capacity."""
    rows = [Row(START, seconds=server.start_s)]
    ways = _ways(server, pictures)
    for in_flight, length_s in ((MANY, seconds), (ALONE, seconds / 2)):
        loads = {what: partial(way, in_flight=in_flight, seconds=length_s) for what, way in ways.items()}
        rows += [_measured(what, in_flight, server, load) for what, load in loads.items()]
    [capacity] = [row.images_per_s for row in rows if (row.what, row.in_flight) == (GRPC, MANY)]
    faces = np.concatenate([picture.canonical for picture in pictures.items])
    rate_per_s = max(1.0, OPEN_LOOP_SHARE * capacity)
    loop = partial(
        grpc_open_loop, server.grpc_url, faces, rate_per_s=rate_per_s, seconds=2 * seconds, warm_up_s=WARM_UP_S
    )
    return [*rows, _measured(OPEN_LOOP, 0, server, loop)]


def _ways(server: RunningServer, pictures: Pictures) -> dict[str, Callable[..., Load]]:
    faces = np.concatenate([picture.canonical for picture in pictures.items])
    encoded = [picture.encoded for picture in pictures.items]
    grpc = partial(grpc_load, server.grpc_url, faces, warm_up_s=WARM_UP_S)
    http = partial(http_load, check=check_http_answer, warm_up_s=WARM_UP_S)
    tensor_url, encoded_url = (f"{server.http_url}/v2/models/{name}/infer" for name in (MODEL_NAME, ENSEMBLE_NAME))
    return {
        GRPC: grpc,
        SHARED_MEMORY: partial(grpc, shared_memory=True),
        HTTP: partial(http, tensor_url, *http_tensor_requests(faces)),
        GRPC_ENCODED: partial(grpc, encoded=encoded),
        HTTP_ENCODED: partial(http, encoded_url, *http_encoded_requests(encoded)),
    }


def _measured(what: str, in_flight: int, server: RunningServer, measure: Callable[[], Load]) -> Row:
    """The row of a load, with the processor time that the server took meanwhile for each of all images."""
    process = psutil.Process(server.pid)
    before_s = processor_time_s(process)
    load = measure()
    server_cpu_ms = (processor_time_s(process) - before_s) * 1e3 / load.answered if load.answered else np.nan
    return Row(
        what,
        in_flight,
        load.throughput,
        load.p50_ms,
        load.p99_ms,
        sum(load.errors.values()),
        load.cpu_ms_per_image,
        server_cpu_ms,
        load.seconds,
    )
