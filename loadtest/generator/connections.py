"""Kept-alive connections for the load generator: ready bytes go out, the answer's bytes come back, one at a time."""

from __future__ import annotations

import socket
from typing import Protocol, cast

import grpc
from geventhttpclient.response import HTTPResponse

from contract.headers import local_headers

TIMEOUT_S = 60.0  # of one request: it is then an error, rather than a load that never ends
RECEIVE_BYTES = 65536
GRPC_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # which http_proxy would name: a proxy is not what is measured
]


class Connection(Protocol):
    """One connection to one server."""

    def ask(self, request: bytes) -> bytes:
        """Return the answer to a prepared request. Raises OSError for an error; the connection is of no use then."""

    def close(self) -> None: ...


class HttpConnection:
    """HTTP/1.1; the parser is geventhttpclient's (llhttp), the socket a plain blocking one."""

    def __init__(self, authority: str) -> None:
        host, _, port = authority.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        self._socket.sendall(request)
        answer = _Body("POST")
        while not answer.message_complete:
            received = self._socket.recv(RECEIVE_BYTES)
            if not received:
                raise ConnectionError("the server closed the connection")
            answer.feed(received)
        body = bytes(answer.body)
        if answer.status_code != 200:
            raise OSError(f"HTTP status {answer.status_code}: {body[:200].decode(errors='replace')}")
        return body


class _Body(HTTPResponse):
    @property
    def body(self) -> bytearray:
        return self._body_buffer


class GrpcConnection:
    """A channel for unary calls of one method, on a connection of its own."""

    def __init__(self, authority: str, method: str) -> None:
        # Otherwise all channels of a process share one connection.
        options = [*GRPC_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(authority, options)
        self._call = self._channel.unary_unary(method, None, None)  # bytes in, bytes out: serialized already
        self._metadata = key_metadata(authority)

    def close(self) -> None:
        self._channel.close()

    def ask(self, request: bytes) -> bytes:
        """Send a serialized message; return the one that comes back."""
        try:
            return cast(bytes, self._call(request, timeout=TIMEOUT_S, metadata=self._metadata))
        except grpc.RpcError as error:
            raise OSError(grpc_error(error)) from error


def key_metadata(authority: str) -> tuple[tuple[str, str], ...]:
    """Return what opens a locked server of this user on this machine."""
    return tuple(local_headers(authority).items())


def grpc_error(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}"
