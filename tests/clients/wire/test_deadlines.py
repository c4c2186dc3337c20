"""Servers that answer slowly, endlessly or wrongly; a call ends when it says, with an error of ours."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from clients import (
    AsyncFaceAttributesClient,
    DeadlineExceeded,
    FaceAttributesClient,
    InvalidReply,
    ServerUnavailable,
    Tls,
)
from contract.spec import IMAGE, MODEL_NAME, OUTPUTS
from tests.clients.tls import tls_in_front_of

TIMEOUT_S = 2.0
ONE_IMAGE = np.zeros((1, *IMAGE.dims), np.uint8)
METADATA = {
    "name": MODEL_NAME,
    "inputs": [{"name": IMAGE.name, "datatype": IMAGE.dtype, "shape": [-1, *IMAGE.dims]}],
    "outputs": [{"name": t.name, "datatype": t.dtype, "shape": [-1, *t.dims]} for t in OUTPUTS],
}
Errors = type[Exception] | tuple[type[Exception], ...]
Behaviour = Callable[[socket.socket], None]


def reply(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


def trickle(connection: socket.socket) -> None:
    """A byte now and then: no read takes long, and together they never end."""
    for byte in reply(json.dumps(METADATA).encode()) * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.1)


def trickle_the_body(connection: socket.socket) -> None:
    connection.sendall(reply(b"x" * 1000)[:-1000])
    while True:
        connection.sendall(b" ")
        time.sleep(0.1)


def continue_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def send_without_end(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * (1 << 16))


def promise_much(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    while True:
        connection.sendall(b" " * (1 << 16))


def send_chunks_without_end(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b" " * (1 << 16) + b"\r\n")


def send_a_bomb(connection: socket.socket) -> None:
    connection.sendall(reply(gzip.compress(bytes(8 << 20)), "Content-Encoding: gzip"))


def end_too_early(connection: socket.socket) -> None:
    connection.sendall(reply(json.dumps(METADATA).encode())[:-5])


def be_late_twice(connection: socket.socket) -> None:
    """Answer metadata and inference each within a deadline, and not both."""
    time.sleep(0.7 * TIMEOUT_S)
    connection.sendall(reply(json.dumps(METADATA).encode()))
    with suppress(OSError):
        connection.recv(1 << 20)
        time.sleep(0.7 * TIMEOUT_S)
        connection.sendall(reply(b"{}"))


@contextmanager
def server(behaviour: Behaviour) -> Iterator[str]:
    """Accept, read what comes first, behave; the address."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            behaviour(connection)

    def accept() -> None:
        with suppress(OSError):  # closed at the end
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def infer_sync(url: str, tls: Tls | None = None) -> None:
    with FaceAttributesClient(url, timeout_s=TIMEOUT_S, retry_for_s=0, tls=tls) as client:
        client.infer(ONE_IMAGE)


def infer_async(url: str, tls: Tls | None = None) -> None:
    async def main() -> None:
        async with AsyncFaceAttributesClient(url, timeout_s=TIMEOUT_S, retry_for_s=0, tls=tls) as client:
            await client.infer(ONE_IMAGE)

    asyncio.run(main())


@pytest.mark.parametrize("infer", [infer_sync, infer_async])
@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (trickle, DeadlineExceeded),
        (trickle_the_body, DeadlineExceeded),
        (be_late_twice, DeadlineExceeded),
        (continue_for_ever, (DeadlineExceeded, ServerUnavailable)),
        (send_without_end, (InvalidReply, DeadlineExceeded)),
        (promise_much, (InvalidReply, DeadlineExceeded)),
        (send_chunks_without_end, (InvalidReply, DeadlineExceeded)),
        (send_a_bomb, InvalidReply),
        (end_too_early, ServerUnavailable),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_call_ends_when_it_says(infer: Callable[[str], None], behaviour: Behaviour, error: Errors) -> None:
    with server(behaviour) as url:
        started = time.monotonic()
        with pytest.raises(error):
            infer(url)
        assert time.monotonic() - started < 4 * TIMEOUT_S


@pytest.mark.parametrize("infer", [infer_sync, infer_async])
def test_a_call_ends_when_it_says_encrypted_too(infer: Callable[[str, Tls], None], certificates: Path) -> None:
    tls = Tls(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
    with server(trickle) as url, tls_in_front_of(url, certificates) as authority:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            infer(f"https://{authority}", tls)
        assert time.monotonic() - started < 4 * TIMEOUT_S


def test_an_unfinished_handshake_ends_in_time() -> None:
    with server(lambda _: time.sleep(3 * TIMEOUT_S)) as url:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            infer_sync(url.replace("http", "https"))
        assert time.monotonic() - started < 4 * TIMEOUT_S


def test_a_server_that_does_not_read_is_not_written_to_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # never accepts: the kernel's buffers fill
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with FaceAttributesClient(url, timeout_s=TIMEOUT_S, retry_for_s=0, wire="encoded") as client:
            client._checked.add(client._model)  # straight to the large request
            with pytest.raises(DeadlineExceeded):
                client.predict(bytes(8 << 20))
        assert time.monotonic() - started < 4 * TIMEOUT_S


def test_what_nobody_asked_for_is_not_the_next_answer() -> None:
    """A reply left over on an idle connection belongs to no one."""

    def answer_twice(connection: socket.socket) -> None:
        connection.sendall(reply(json.dumps({"name": "first", "version": "", "extensions": []}).encode()))
        time.sleep(0.1)
        connection.sendall(reply(b'{"name": "stray"}'))
        connection.recv(1 << 16)

    with server(answer_twice) as url, FaceAttributesClient(url, timeout_s=1) as client:
        assert client.model_config(MODEL_NAME)["name"] == "first"
        time.sleep(0.3)
        assert client.model_config(MODEL_NAME)["name"] == "first"
