"""Kept-alive connections for the load generator: ready bytes go out, the answer's bytes come back, one at a time.

Both stand in for libraries because they share the server's cores: a unary call through grpcio's Python client takes
0.27-0.47 ms of processor time (of INT8 inference 3 ms), these take 0.1. They do what the generator needs and no more.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from typing import Protocol

from geventhttpclient.response import HTTPResponse

TIMEOUT_S = 60.0  # of one request: it is then an error, rather than a load that never ends
RECEIVE_BYTES = 65536


class Connection(Protocol):
    """One connection to one server."""

    def ask(self, request: bytes) -> bytes:
        """The answer to a prepared request. Raises OSError for an error; the connection is of no use then."""

    def close(self) -> None: ...


def _connect(authority: str) -> socket.socket:
    host, _, port = authority.rpartition(":")
    connected = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


class HttpConnection:
    """HTTP/1.1; the parser is geventhttpclient's (llhttp), the socket a plain blocking one."""

    def __init__(self, authority: str) -> None:
        self._socket = _connect(authority)

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


# Frame types, flags and settings of HTTP/2 (RFC 9113) that a unary call meets.
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = struct.Struct(">BHBBI")  # length in 8 + 16 bits, type, flags, stream
FRAME_BYTES = 16384  # what every peer takes
DEFAULT_WINDOW = 65535
LARGEST_WINDOW = 2**31 - 1  # opened once: answers are small, so it need not be renewed


class GrpcConnection:
    """HTTP/2 as far as unary gRPC calls need it, one call at a time. An error's text is what its trailers spell out."""

    def __init__(self, authority: str, method: str) -> None:
        self._headers = _header_block(authority, method)
        self._socket = _connect(authority)
        self._stream = -1
        self._window = self._stream_window = self._initial_window = DEFAULT_WINDOW  # what we may send
        self._received = bytearray()
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
        window = struct.pack(">I", LARGEST_WINDOW - DEFAULT_WINDOW)
        self._socket.sendall(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, window))

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """`request` is a serialized message, as is what comes back."""
        self._stream += 2
        self._stream_window = self._initial_window
        self._send(b"\0" + struct.pack(">I", len(request)) + request)
        message, trailers = b"", b""
        for kind, flags, stream, payload in self._frames():
            if stream != self._stream:
                continue
            if kind == DATA:
                message += payload
            elif kind == HEADERS:
                trailers = payload
            elif kind == RST_STREAM:
                raise OSError(f"gRPC call reset, HTTP/2 error {int.from_bytes(payload, 'big')}")
            if flags & END_STREAM and kind in (DATA, HEADERS):
                break
        if not message:
            raise OSError(f"gRPC error: {_spelt_out(trailers)}")
        return message[5:]

    def _send(self, message: bytes) -> None:
        chunks = [message[start : start + FRAME_BYTES] for start in range(0, len(message), FRAME_BYTES)]
        frames = [_frame(DATA, 0, self._stream, chunk) for chunk in chunks[:-1]]
        frames.append(_frame(DATA, END_STREAM, self._stream, chunks[-1]))
        head = _frame(HEADERS, END_HEADERS, self._stream, self._headers)
        if min(self._window, self._stream_window) >= len(message):
            self._socket.sendall(b"".join([head, *frames]))
        else:
            self._send_slowly(head, frames)
        self._window -= len(message)
        self._stream_window -= len(message)

    def _send_slowly(self, head: bytes, frames: list[bytes]) -> None:
        """Each frame when the server has room for it; an answer that comes meanwhile can only be a refusal."""
        self._socket.sendall(head)
        sent, others = 0, self._frames()
        for frame in frames:
            sent += len(frame) - FRAME.size
            while min(self._window, self._stream_window) < sent:
                kind, _, stream, payload = next(others)
                if stream == self._stream and kind != WINDOW_UPDATE:
                    raise OSError(f"gRPC call ended before it was sent: {_spelt_out(payload)}")
            self._socket.sendall(frame)

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of each frame that comes; what concerns the connection is seen to here."""
        while True:
            high, low, kind, flags, stream = FRAME.unpack(self._take(FRAME.size))
            payload = self._take(high << 16 | low)
            if kind == WINDOW_UPDATE:
                self._widen(stream, int.from_bytes(payload, "big"))
            elif kind == SETTINGS and not flags & ACK:
                self._adopt(payload)
            elif kind == PING and not flags & ACK:
                self._socket.sendall(_frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                raise ConnectionError(f"the server ended the connection: {payload[8:].decode(errors='replace')}")
            yield kind, flags, stream, payload

    def _widen(self, stream: int, by: int) -> None:
        if stream == 0:
            self._window += by
        elif stream == self._stream:
            self._stream_window += by

    def _adopt(self, settings: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", settings):
            if name == INITIAL_WINDOW_SIZE:
                self._stream_window += value - self._initial_window
                self._initial_window = value
        self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            received = self._socket.recv(RECEIVE_BYTES)
            if not received:
                raise ConnectionError("the server closed the connection")
            self._received += received
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _spelt_out(trailers: bytes) -> str:
    """Status and message, of which gRPC servers compress neither, without decoding the rest of the block."""
    return " ".join(re.findall(r"[ -~]{4,}", trailers.decode("latin-1")))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def _header_block(authority: str, method: str) -> bytes:
    """HPACK (RFC 7541) without its table, so that the block is the same for every call: literals, never indexed."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(b"\x10" + _literal(name) + _literal(value) for name, value in fields.items())


def _literal(text: str) -> bytes:
    if len(text) > 126:
        raise ValueError(f"{text!r} is longer than the 126 bytes that fit a header here")
    return bytes([len(text)]) + text.encode("ascii")
