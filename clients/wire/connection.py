"""HTTP/1.1 connections of the synchronous client, on which a deadline ends all that a call does.

Written here because a timeout of http.client, urllib3, requests or httpx is for each read: a server that sends a byte
now and then is listened to for ever.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import Any

from clients.errors import ClientClosed, InvalidReply
from clients.wire.forks import leave_to_parent, start_anew_after_fork

MAX_IDLE = 64
MAX_REPLY_BYTES = 4 * 1024 * 1024  # as gRPC's default; 64 faces are 3 kB


class _DeadlineSocket(socket.socket):
    """A socket whose every wait is for what is left until `deadline`, in time.monotonic()'s seconds."""

    deadline = 0.0

    def wait_no_longer(self) -> None:
        """Raises TimeoutError."""
        if (left_s := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(left_s)

    def connect(self, address: Any) -> None:
        self.wait_no_longer()
        super().connect(address)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.wait_no_longer()
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self.wait_no_longer()
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.wait_no_longer()
        super().sendall(*args, **kwargs)


class _TlsDeadlineSocket(_DeadlineSocket, ssl.SSLSocket):
    """The same, encrypted."""


class Connections:
    """Connections to one server, used by one call at a time each; the idle ones are kept.

    authority: host:port
    tls: verifies the server; without it nothing is encrypted
    """

    def __init__(self, authority: str, tls: ssl.SSLContext | None) -> None:
        self._authority = authority
        self._tls = tls
        if tls:
            tls.sslsocket_class = _TlsDeadlineSocket
        self._idle: deque[HTTPConnection] = deque()
        self._closed = False
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """In a forked child: close its copies of the descriptors, which leaves the parent's connections standing."""
        idle, self._idle = self._idle, deque()
        for connection in idle:
            leave_to_parent(connection)
            connection.close()

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, deadline: float
    ) -> tuple[HTTPConnection, int, Message, bytes]:
        """Return the connection, to be given back, and the reply's status, headers and body.

        Raises CONNECTION_ERRORS, a TimeoutError once the deadline has passed, and InvalidReply for too long a reply.
        """
        connection = self._take(deadline)
        response = None
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            content = response.read(MAX_REPLY_BYTES + 1)
            check_size(len(content))
            if response.length:  # http.client says nothing of an end that comes too early
                raise IncompleteRead(content, response.length)
        except BaseException:  # an interrupted call's answer would be read by the next one
            if response:
                response.close()
            connection.close()
            raise
        return connection, response.status, response.headers, content

    def give_back(self, connection: HTTPConnection) -> None:
        """Keep a connection, whose reply was read to its end, for the next call."""
        if self._closed or len(self._idle) >= MAX_IDLE:
            connection.close()
        elif connection.sock is not None:  # None where the server said that it closes
            self._idle.append(connection)

    def drop_idle(self) -> None:
        """Close what is idle: where one connection broke, those beside it are likely to be as old."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread took it
                return

    def close(self) -> None:
        """Close what is idle, and every other connection when its call is over."""
        self._closed = True
        self.drop_idle()

    def _take(self, deadline: float) -> HTTPConnection:
        if self._closed:
            raise ClientClosed("the client was closed during the call")
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._open(deadline)
            if isinstance(connection.sock, _DeadlineSocket) and _is_silent(connection.sock):
                connection.sock.deadline = deadline
                return connection
            connection.close()

    def _open(self, deadline: float) -> HTTPConnection:
        connection = HTTPConnection(self._authority)
        error: OSError = OSError(f"{connection.host} has no address")
        # Only this look-up, which the operating system bounds, knows nothing of the deadline.
        for family, kind, protocol, _, address in socket.getaddrinfo(
            connection.host, connection.port, type=socket.SOCK_STREAM
        ):
            plain = _DeadlineSocket(family, kind, protocol)
            plain.deadline = deadline
            try:
                plain.connect(address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                connection.sock = self._encrypted(plain, connection.host)
            except OSError as failure:
                plain.close()
                error = failure
            else:
                return connection
        raise error

    def _encrypted(self, plain: _DeadlineSocket, host: str) -> _DeadlineSocket:
        if self._tls is None:
            return plain
        plain.wait_no_longer()  # the handshake has what is left
        encrypted = self._tls.wrap_socket(plain, server_hostname=host)
        assert isinstance(encrypted, _TlsDeadlineSocket)
        encrypted.deadline = plain.deadline
        return encrypted


def check_size(length: int) -> None:
    """Raise InvalidReply for a reply of more bytes than any of ours has."""
    if length > MAX_REPLY_BYTES:
        raise InvalidReply(f"the reply has more than {MAX_REPLY_BYTES:,} bytes")


def _is_silent(sock: socket.socket) -> bool:
    """Tell whether an idle connection is fit for use: one that ended, or says what nobody asked for, is not."""
    try:
        sock.settimeout(0)
        socket.socket.recv(sock, 1, socket.MSG_PEEK)  # past the encryption, whose own recv knows no flags
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


CONNECTION_ERRORS = (OSError, HTTPException, UnicodeError)  # UnicodeError: a host name that none can have
