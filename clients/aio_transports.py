"""Transports of the asynchronous client. They connect within the event loop, so with the first call."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import aiohttp
import grpc
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from clients import wire_grpc, wire_http
from clients.connection import Connection
from clients.errors import DeadlineExceeded, ServerUnavailable
from clients.protocol import Call, Reply


class AsyncTransport(Protocol):
    """What the client needs of a transport; a test's may answer from memory."""

    async def send(self, call: Call) -> Reply:
        """The server's reply. Raises only errors of `clients.errors`."""

    async def close(self) -> None:
        """Release the connection."""


def open_transport(connection: Connection) -> AsyncTransport:
    """The transport for the connection's scheme."""
    return AsyncGrpcTransport(connection) if connection.is_grpc else AsyncHttpTransport(connection)


class AsyncGrpcTransport:
    """One HTTP/2 channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._credentials = connection.grpc_credentials()

    async def send(self, call: Call) -> Reply:
        url, timeout_s, metadata = self._connection.url, self._connection.timeout_s, self._connection.grpc_metadata
        method = getattr(self._stub, call.operation.rpc)
        try:
            message = await method(wire_grpc.encode(call), timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise wire_grpc.error(error, url=url) from None
        return wire_grpc.decode(call, message, url=url)

    async def close(self) -> None:
        if "_channel" in self.__dict__:
            await self._channel.close()

    @cached_property
    def _channel(self) -> Any:
        target, options, compression = (
            self._connection.authority,
            self._connection.grpc_options(),
            self._connection.grpc_compression,
        )
        if self._credentials:
            return grpc.aio.secure_channel(target, self._credentials, options, compression)
        return grpc.aio.insecure_channel(target, options, compression)

    @cached_property
    def _stub(self) -> Any:
        return GRPCInferenceServiceStub(self._channel)


class AsyncHttpTransport:
    """A pool of HTTP/1.1 connections."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ssl = connection.ssl_context() if connection.scheme == "https" else True

    async def send(self, call: Call) -> Reply:
        url, headers = self._connection.url, self._connection.headers
        request = wire_http.encode(call, compress=self._connection.compress)
        try:
            async with self._session.request(
                request.method,
                f"{url}/{request.path}",
                data=request.body,
                headers={**headers, **request.headers},
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except TimeoutError:
            raise DeadlineExceeded(f"{url}: no answer within {self._connection.timeout_s} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ServerUnavailable(f"{url}: {error or type(error).__name__}") from None
        return wire_http.decode(call, response.status, response.headers, body, url=url)

    async def close(self) -> None:
        if "_session" in self.__dict__:
            await self._session.close()

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connection.max_connections, ssl=self._ssl),
            timeout=aiohttp.ClientTimeout(total=self._connection.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
