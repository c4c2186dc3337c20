"""Use a client before a fork, then ask in the parent and in children at once: prints how many answers were another's.

python -m tests.clients.wire.forking URL shared_memory|plain idle|busy|async
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from clients import AsyncFaceAttributesClient, FaceAttributesClient
from contract.spec import Images
from tests.clients.material import make_pictures

CALLS = 30
CHILDREN = 3
Infer = Callable[[Images], float]


def main(url: str, memory: str, kind: str) -> None:
    options = {"timeout_s": 30.0, "shared_memory": memory == "shared_memory"}
    pictures = make_pictures(8)
    with FaceAttributesClient(url, timeout_s=60) as client:
        ages = [float(client.infer(picture[None]).age[0]) for picture in pictures]
    assert np.ptp(ages) > 0.1, "the pictures cannot be told apart"
    infer, close = synchronous(url, options) if kind != "async" else asynchronous(url, options)
    assert wrong(infer, pictures, ages, [0, 1]) == 0
    # Forked while other threads are in the midst of calls, as in any server that forks late.
    busy = [threading.Thread(target=wrong, args=(infer, pictures, ages, [7] * 20), daemon=True) for _ in range(2)]
    if kind == "busy":
        for thread in busy:
            thread.start()
        time.sleep(0.02)
    start = time.monotonic() + 1  # all at once: what they share, they use at the same moment
    children = []
    for _ in range(CHILDREN):
        if (pid := os.fork()) == 0:
            found, say = CALLS, ""
            try:
                time.sleep(max(0.0, start - time.monotonic()))
                try:
                    found = wrong(infer, pictures, ages, [index % 4 for index in range(CALLS)])
                finally:
                    close()
            except BaseException as error:
                say = repr(error)
            os.write(1, f"child {found} {say}\n".encode())
            os._exit(0)
        children.append(pid)
    time.sleep(max(0.0, start - time.monotonic()))
    found = wrong(infer, pictures, ages, [4 + index % 4 for index in range(CALLS)])
    for pid in children:
        os.waitpid(pid, 0)
    found += wrong(infer, pictures, ages, [0, 1, 2, 3])  # what the children gave up was their own
    close()
    print("parent", found, flush=True)


def wrong(infer: Infer, pictures: Images, ages: list[float], indices: list[int]) -> int:
    return sum(abs(infer(pictures[index : index + 1]) - ages[index]) > 1e-3 for index in indices)


def synchronous(url: str, options: dict[str, float]) -> tuple[Infer, Callable[[], None]]:
    client = FaceAttributesClient(url, **options)  # type: ignore[arg-type]
    return lambda image: float(client.infer(image).age[0]), client.close


def asynchronous(url: str, options: dict[str, float]) -> tuple[Infer, Callable[[], None]]:
    """Each process has its event loop, as each worker of a server has."""
    client = AsyncFaceAttributesClient(url, **options)  # type: ignore[arg-type]
    loops: dict[int, asyncio.AbstractEventLoop] = {}

    def loop() -> asyncio.AbstractEventLoop:
        if os.getpid() not in loops:
            loops[os.getpid()] = asyncio.new_event_loop()
        return loops[os.getpid()]

    return (
        lambda image: float(loop().run_until_complete(client.infer(image)).age[0]),
        lambda: loop().run_until_complete(client.close()),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
