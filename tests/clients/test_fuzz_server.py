"""The server under requests that are wrong in every way: each is refused alone, and nothing of it stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import urllib3
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from clients import FaceAttributesClient
from contract.spec import Images
from serving.server import TritonServer
from tests.clients.hostile import grpc_request, http_request, image_request

THREADS = 4
DEADLINE_S = 30.0
REFUSALS = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "OUT_OF_RANGE",
    "400",
    "404",
    "500",
}


def test_the_server_outlives_thousands_of_hostile_requests(mortal_server: TritonServer, pictures: Images) -> None:
    with FaceAttributesClient(mortal_server.grpc_url, timeout_s=60) as client, attacker(mortal_server) as attack:
        expected = client.infer(pictures).age
        list(attack(range(2000)))  # after these the server has what it keeps for good, such as its threads' arenas
        before = resident_bytes(mortal_server.pid)
        outcomes = Counter(attack(range(2000, 4500)))
        grown = resident_bytes(mortal_server.pid) / before - 1
        np.testing.assert_allclose(client.infer(pictures).age, expected, atol=1e-4)
        assert client.health().ready
    print(f"{sum(outcomes.values())} requests: {dict(outcomes)}; resident memory {grown:+.1%}")
    assert set(outcomes) <= REFUSALS | {"OK", "200"}, outcomes
    assert grown < 0.05


@contextmanager
def attacker(server: TritonServer) -> Iterator[Any]:
    """A function from seeds to outcomes: a status each."""
    channel = grpc.insecure_channel(server.grpc_url.removeprefix("grpc://"))
    stub = GRPCInferenceServiceStub(channel)
    pool = urllib3.connection_from_url(server.http_url, maxsize=THREADS, retries=False, timeout=DEADLINE_S)

    def send(seed: int) -> str:
        rng = np.random.default_rng(seed)
        if seed % 3 == 0:
            path, headers, body = http_request(rng)
            return str(pool.request("POST", path, headers=headers | server.headers, body=body).status)
        request = grpc_request(rng) if seed % 3 == 1 else image_request(rng)
        try:
            stub.ModelInfer(request, timeout=DEADLINE_S, metadata=tuple(server.headers.items()))
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    with channel, pool, ThreadPoolExecutor(THREADS) as threads:
        yield lambda seeds: threads.map(send, seeds)


def resident_bytes(group: int) -> int:
    """Of all processes of the server, whose group has the number of its first one."""
    total_kib = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if int(status.parent.joinpath("stat").read_text().rpartition(")")[2].split()[2]) == group:
                total_kib += int(fields["VmRSS"].split()[0])
        except (FileNotFoundError, ProcessLookupError, KeyError):
            continue  # ended while being read, or a kernel thread
    return total_kib * 1024
