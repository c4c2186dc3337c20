"""What an application gets from a server: images/s and latency for each way over the wire, style and concurrency.

python -m clients.benchmark photos/ --grpc-url grpc://127.0.0.1:8001 --http-url http://127.0.0.1:8000 --out clients.csv

Every cell starts from encoded images in memory and ends with a `Face`; so a tensor's decoding is counted, here at the
client. A latency is that of one image: of a call, or in a stream from being taken from the source to its answer being
handed out in order, which includes waiting for those before it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro
from tqdm import tqdm

from clients.aio import AsyncFaceAttributesClient
from clients.client import FaceAttributesClient
from clients.command_line import one_line_for
from clients.errors import FaceAttributesError, InvalidInput
from clients.sources import sources
from contract.files import replacing

WARM_UP_S = 0.5


@dataclass(frozen=True)
class Config:
    """Measure every way of asking one server."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional]  # files, folders or globs; asked for in turn
    grpc_url: str = "grpc://127.0.0.1:8001"
    http_url: str = "http://127.0.0.1:8000"
    seconds: float = 5.0  # a cell; p99 of a lone request needs some hundred of them
    in_flight: tuple[int, ...] = (1, 16)
    out: Path | None = None  # the table as CSV


@dataclass(frozen=True)
class Way:
    """One way over the wire."""

    name: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    way: str
    style: str
    in_flight: int
    images: int
    images_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Timings:
    """What a style measured, in seconds."""

    latencies: list[float]  # of each image
    elapsed: float


Measure = Callable[[Way, Sequence[bytes], int, float], Timings]


def ways(grpc_url: str, http_url: str) -> tuple[Way, ...]:
    encoded = {"wire": "encoded"}
    return (
        Way("gRPC tensor", grpc_url),
        Way("gRPC shared memory", grpc_url, {"shared_memory": True}),
        Way("gRPC encoded", grpc_url, encoded),
        Way("HTTP tensor", http_url),
        Way("HTTP encoded", http_url, encoded),
    )


def measure_sync(way: Way, images: Sequence[bytes], in_flight: int, seconds: float) -> Timings:
    """`in_flight` threads that share a client."""
    with FaceAttributesClient(way.url, timeout_s=60, **way.options) as client, ThreadPoolExecutor(in_flight) as threads:
        client.predict(images[0])  # connects and compares the contract, once for all
        started = time.perf_counter()

        def work(first: int) -> list[float]:
            latencies = []
            for image in itertools.islice(itertools.cycle(images), first, None):
                asked = time.perf_counter()
                if asked > started + seconds:
                    break
                client.predict(image)
                latencies.append(time.perf_counter() - asked)
            return latencies

        latencies = list(itertools.chain.from_iterable(threads.map(work, range(in_flight))))
        return Timings(latencies, time.perf_counter() - started)


def measure_async(way: Way, images: Sequence[bytes], in_flight: int, seconds: float) -> Timings:
    """`in_flight` tasks that share a client."""

    async def main() -> Timings:
        latencies: list[float] = []
        async with AsyncFaceAttributesClient(way.url, timeout_s=60, **way.options) as client:
            await client.predict(images[0])
            started = time.perf_counter()

            async def work(first: int) -> None:
                for image in itertools.islice(itertools.cycle(images), first, None):
                    asked = time.perf_counter()
                    if asked > started + seconds:
                        break
                    await client.predict(image)
                    latencies.append(time.perf_counter() - asked)

            await asyncio.gather(*(work(index) for index in range(in_flight)))
            return Timings(latencies, time.perf_counter() - started)

    return asyncio.run(main())


def measure_stream(way: Way, images: Sequence[bytes], in_flight: int, seconds: float) -> Timings:
    """One stream, read as fast as it answers."""
    taken: list[float] = []
    with FaceAttributesClient(way.url, timeout_s=60, **way.options) as client:
        client.predict(images[0])
        started = time.perf_counter()

        def source() -> Iterator[bytes]:
            for image in itertools.cycle(images):
                taken.append(time.perf_counter())
                if taken[-1] > started + seconds:
                    return
                yield image

        answered = [time.perf_counter() for _ in client.predict_stream(source(), in_flight=in_flight)]
        latencies = [end - start for start, end in zip(taken, answered, strict=False)]
        return Timings(latencies, time.perf_counter() - started)


STYLES: dict[str, Measure] = {"sync": measure_sync, "async": measure_async, "stream": measure_stream}


def measure(way: Way, style: str, images: Sequence[bytes], *, in_flight: int, seconds: float) -> Cell:
    """One cell, after a warm-up of the server for this concurrency."""
    STYLES[style](way, images, in_flight, WARM_UP_S)
    timings = STYLES[style](way, images, in_flight, seconds)
    count = len(timings.latencies)
    p50_ms, p99_ms = (float(value) for value in 1000 * np.percentile(timings.latencies, (50, 99)))
    return Cell(way.name, style, in_flight, count, count / timings.elapsed, p50_ms, p99_ms)


def conditions(config: Config, images: Sequence[bytes]) -> str:
    """What the numbers depend on."""
    with FaceAttributesClient(config.grpc_url) as client:
        health = client.health()
    mean_kb = sum(map(len, images)) / len(images) / 1000
    return (
        f"{health.server} {health.version}; client beside it on {os.cpu_count()} {platform.machine()} cores, Python "
        f"{platform.python_version()}; {len(images)} images of {mean_kb:.0f} kB on average, one a request; "
        f"{config.seconds:g} s a cell after {WARM_UP_S} s of warm-up"
    )


@one_line_for(FaceAttributesError)
def main(config: Config) -> int:
    images = [s.image if isinstance(s.image, bytes) else s.image.read_bytes() for s in sources(config.images)]
    if not images:
        raise InvalidInput("name some images")
    cells = list(itertools.product(ways(config.grpc_url, config.http_url), STYLES, config.in_flight))
    table = pd.DataFrame(
        asdict(measure(way, style, images, in_flight=in_flight, seconds=config.seconds))
        for way, style, in_flight in tqdm(cells, unit="cell")
    )
    print(f"{conditions(config, images)}\n\n{to_markdown(table)}")
    if config.out:
        with replacing(config.out) as temporary:
            table.to_csv(temporary, index=False)
    return 0


def to_markdown(table: pd.DataFrame) -> str:
    rows = (
        f"| {c.way} | {c.style} | {c.in_flight} | {c.images_per_s:.1f} | {c.p50_ms:.1f} | {c.p99_ms:.1f} |"
        for c in table.itertuples()
    )
    header = "| way | style | in flight | images/s | p50 ms | p99 ms |\n|---|---|---:|---:|---:|---:|"
    return "\n".join((header, *rows))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
