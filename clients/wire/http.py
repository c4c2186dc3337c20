"""Calls over HTTP: several HTTP/1.1 connections a client. The synchronous transport first, then the asynchronous."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import quote

import aiohttp
from tritonclient.http import InferenceServerClient, InferInput, InferResult

from clients.calls import ALL_OUTPUTS, INFER, LIVE, READY, Call, Reply, Tensor, check_id
from clients.errors import (
    AccessDenied,
    ClientClosed,
    DeadlineExceeded,
    FaceAttributesError,
    InvalidInput,
    InvalidReply,
    ModelNotFound,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    error_class,
)
from clients.wire.connection import CONNECTION_ERRORS, Connections, check_size
from clients.wire.endpoint import Endpoint
from clients.wire.forks import LoopBound

MAX_CONNECTIONS = 64

Headers = Mapping[str, str] | Message  # read without regard to case

_PROBES = {LIVE: "live", READY: "ready"}  # answered with a status alone
_ERRORS: dict[int, type[FaceAttributesError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: ModelNotFound,
    408: DeadlineExceeded,
    409: InvalidInput,
    413: InvalidInput,
    429: ServerBusy,
    499: ClientClosed,
    502: ServerUnavailable,
    503: ServerUnavailable,
    504: DeadlineExceeded,
}


class HttpTransport:
    """Connections shared by all threads.

    http.client rather than tritonclient's own HTTP client, which is bound to the gevent hub of one thread.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        tls = _ssl_context(endpoint) if endpoint.scheme == "https" else None
        self._connections = Connections(endpoint.authority, tls)

    def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        deadline = time.monotonic() + self._endpoint.seconds_left(call)
        request = encode(call, self._endpoint)
        with _errors_of_ours(self._endpoint, on_loss=self._connections.drop_idle):
            connection, status, headers, body = self._connections.request(
                request.method, f"/{request.path}", request.body, request.headers, deadline=deadline
            )
            try:
                reply = decode(call, status, headers, body, url=self._endpoint.url)
            except InvalidReply:  # perhaps another call's: what follows on this connection would be too
                connection.close()
                raise
            except FaceAttributesError:
                self._connections.give_back(connection)
                raise
            self._connections.give_back(connection)
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()


class AsyncHttpTransport:
    """A pool opened within the event loop and so with the first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._ssl = _ssl_context(endpoint) if endpoint.scheme == "https" else True
        self._session: LoopBound[aiohttp.ClientSession] = LoopBound(self._open_session)

    async def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        session, url = self._session.get(), self._endpoint.url
        seconds_left = self._endpoint.seconds_left(call)
        request = encode(call, self._endpoint)
        with _errors_of_ours(self._endpoint):
            async with (
                asyncio.timeout(seconds_left),
                session.request(
                    request.method,
                    f"{url}/{request.path}",
                    data=request.body,
                    headers=request.headers,
                    allow_redirects=False,
                ) as response,
            ):
                reply = decode(call, response.status, response.headers, await _body(response), url=url)
        return reply

    async def close(self) -> None:
        """Close the pool where one was opened."""
        if session := self._session.opened:
            await session.close()
            await asyncio.sleep(0)  # what calls left unfinished ends in the loop's next round, which may be its last

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=self._ssl),
            timeout=aiohttp.ClientTimeout(),  # none: asyncio's is exact, while these are rounded up to seconds
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Read no more than a reply may have. Raises InvalidReply."""
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        check_size(len(body))
    return bytes(body)


@contextmanager
def _errors_of_ours(endpoint: Endpoint, on_loss: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise what the libraries raise as errors of `clients.errors`; `on_loss` is called when a connection broke."""
    try:
        yield
    except FaceAttributesError:  # some are OSErrors too
        raise
    except TimeoutError:
        raise DeadlineExceeded(f"{endpoint.url}: no answer within {endpoint.timeout_s} s") from None
    except (*CONNECTION_ERRORS, aiohttp.ClientError) as error:
        on_loss()
        raise ServerUnavailable(f"{endpoint.url}: {error or type(error).__name__}") from None


@dataclass(frozen=True)
class HttpRequest:
    """What a transport sends; the path is relative to the server's root. Headers, which may be secret, stay unshown."""

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str] = field(repr=False)


def encode(call: Call, endpoint: Endpoint) -> HttpRequest:
    """Return the request's method, path, body and headers."""
    path = call.operation.path.format(**{name: quote(str(value), safe="") for name, value in call.fields.items()})
    headers = {**endpoint.headers, "Accept-Encoding": "identity"}  # what unpacks could fill the memory
    if call.tensor is None:
        body = json.dumps(dict(call.fields)).encode() if call.operation.http_method == "POST" else None
        return HttpRequest(call.operation.http_method, path, body, headers)
    body, json_bytes = InferenceServerClient.generate_request_body(
        [_input(call.tensor)],
        request_id=call.id,
        timeout=endpoint.microseconds_left(call),
        parameters=dict(call.parameters) or None,
    )
    if json_bytes is not None:
        headers["Inference-Header-Content-Length"] = str(json_bytes)
    if endpoint.compress:
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return HttpRequest("POST", path, body, headers)


def decode(call: Call, status: int, headers: Headers, body: bytes, *, url: str) -> Reply:
    """Return the reply's arrays or fields. Raises the error that the status stands for."""
    if call.operation in _PROBES:
        return {_PROBES[call.operation]: status == 200}
    if status != 200:
        words = _message(status, body)
        raise error_class(_ERRORS.get(status, ServerError), words)(f"{url}: {words}")
    if (encoding := headers.get("Content-Encoding", "identity")) != "identity":
        raise InvalidReply(f"{url}: the reply is compressed ({encoding}), which was not asked for")
    try:
        if call.operation is INFER:
            return _arrays(call, headers, body)
        fields = json.loads(body) if body else {}
    except Exception as error:  # tritonclient's parser lets struct.error, KeyError and others through
        raise InvalidReply(f"{url}: the reply to {call.operation.path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidReply(f"{url}: the reply to {call.operation.path} is not a JSON object")
    return fields


def _input(tensor: Tensor) -> InferInput:
    wire = InferInput(tensor.spec.name, list(tensor.array.shape), tensor.spec.dtype)
    if tensor.region:
        return wire.set_shared_memory(tensor.region.name, tensor.region.byte_size, tensor.region.offset)
    return wire.set_data_from_numpy(tensor.array)


def _arrays(call: Call, headers: Headers, body: bytes) -> Reply:
    json_bytes = headers.get("Inference-Header-Content-Length")
    result = InferResult.from_response_body(body, header_length=json_bytes)
    check_id(call, result.get_response().get("id", ""))
    return {t.name: array for t in ALL_OUTPUTS if (array := result.as_numpy(t.name)) is not None}


def _message(status: int, body: bytes) -> str:
    """Triton's own words where the body has them."""
    try:
        content: Any = json.loads(body)
        return str(content["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}"


def _ssl_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Raises InvalidInput for a file that cannot be read or is not PEM."""
    try:
        context = ssl.create_default_context(cafile=endpoint.tls.ca_file)
        if endpoint.tls.certificate_file:
            context.load_cert_chain(endpoint.tls.certificate_file, endpoint.tls.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInput(f"TLS files {endpoint.tls}: {error}") from error
    return context
