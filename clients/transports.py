"""Transports of the synchronous client: a call goes out, a reply comes back. All that is not I/O is elsewhere."""

from __future__ import annotations

import socket
from typing import Protocol

import grpc
import urllib3
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from clients import wire_grpc, wire_http
from clients.connection import Connection
from clients.errors import ClientClosed, DeadlineExceeded, ServerUnavailable
from clients.protocol import Call, Reply


class Transport(Protocol):
    """What the client needs of a transport; a test's may answer from memory. Must be safe to use from many threads."""

    def send(self, call: Call) -> Reply:
        """The server's reply. Raises only errors of `clients.errors`."""

    def close(self) -> None:
        """Release the connection."""


def open_transport(connection: Connection) -> Transport:
    """The transport for the connection's scheme; it connects with the first call."""
    return GrpcTransport(connection) if connection.is_grpc else HttpTransport(connection)


class GrpcTransport:
    """One HTTP/2 channel, shared by all threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        target, credentials, options = connection.authority, connection.grpc_credentials(), connection.grpc_options()
        self._channel = (
            grpc.secure_channel(target, credentials, options, connection.grpc_compression)
            if credentials
            else grpc.insecure_channel(target, options, connection.grpc_compression)
        )
        self._stub = GRPCInferenceServiceStub(self._channel)

    def send(self, call: Call) -> Reply:
        url, timeout_s, metadata = self._connection.url, self._connection.timeout_s, self._connection.grpc_metadata
        method = getattr(self._stub, call.operation.rpc)
        try:
            message = method(wire_grpc.encode(call), timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise wire_grpc.error(error, url=url) from None
        return wire_grpc.decode(call, message, url=url)

    def close(self) -> None:
        self._channel.close()


class HttpTransport:
    """A pool of HTTP/1.1 connections, shared by all threads.

    urllib3 rather than tritonclient's own HTTP client, which is bound to the gevent hub of one thread.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        tls = {"ssl_context": connection.ssl_context()} if connection.scheme == "https" else {}
        self._pool = urllib3.connection_from_url(
            connection.url,
            maxsize=connection.max_connections,
            timeout=urllib3.Timeout(total=connection.timeout_s),
            retries=False,  # the client retries, by one policy for every transport
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
            **tls,
        )

    def send(self, call: Call) -> Reply:
        url, headers = self._connection.url, self._connection.headers
        request = wire_http.encode(call, compress=self._connection.compress)
        try:
            response = self._pool.request(
                request.method, f"/{request.path}", body=request.body, headers={**headers, **request.headers}
            )
        except urllib3.exceptions.NewConnectionError as error:  # a TimeoutError to urllib3, but nothing was sent
            raise ServerUnavailable(f"{url}: no connection: {error}") from None
        except urllib3.exceptions.TimeoutError:
            raise DeadlineExceeded(f"{url}: no answer within {self._connection.timeout_s} s") from None
        except urllib3.exceptions.ClosedPoolError:
            raise ClientClosed(f"{url}: the client was closed during the call") from None
        except urllib3.exceptions.HTTPError as error:
            raise ServerUnavailable(f"{url}: {error}") from None
        return wire_http.decode(call, response.status, response.headers, response.data, url=url)

    def close(self) -> None:
        self._pool.close()
