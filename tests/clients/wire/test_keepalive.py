"""A long call on a healthy connection; gRPC's own server, as strict about pings as every server that uses it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server

from clients.calls import MODEL_METADATA, Call
from clients.wire.endpoint import Endpoint
from clients.wire.grpc import GrpcTransport

LONG_S = 270  # with a ping every 30 s the connection ended after 210


class Slow(GRPCInferenceServiceServicer):  # type: ignore[misc]
    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        time.sleep(LONG_S)
        return service_pb2.ModelMetadataResponse(name=request.name)


@pytest.fixture
def slow_url() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    add_GRPCInferenceServiceServicer_to_server(Slow(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.endurance
@pytest.mark.timeout(2 * LONG_S)
def test_a_long_call_is_not_ended_by_pings(slow_url: str) -> None:
    transport = GrpcTransport(Endpoint.at(slow_url, timeout_s=LONG_S + 60))
    assert transport.send(Call(MODEL_METADATA, {"name": "m"}))["name"] == "m"
    transport.close()
