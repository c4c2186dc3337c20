"""Calls over HTTP: a pool of HTTP/1.1 connections a client. The synchronous transport first, then the asynchronous."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

import aiohttp
import urllib3
from tritonclient.http import InferenceServerClient, InferInput, InferResult

from clients.errors import (
    AccessDenied,
    ClientClosed,
    DeadlineExceeded,
    FaceAttributesError,
    InvalidInput,
    InvalidReply,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
)
from clients.messages import ALL_OUTPUTS, INFER, LIVE, READY, Call, Reply, Tensor
from clients.wire.endpoint import Endpoint

MAX_CONNECTIONS = 64

_PROBES = {LIVE: "live", READY: "ready"}  # answered with a status alone
_ERRORS: dict[int, type[FaceAttributesError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: ModelNotFound,
    408: DeadlineExceeded,
    409: InvalidInput,
    413: InvalidInput,
    499: ClientClosed,
    502: ServerUnavailable,
    503: ServerUnavailable,
    504: DeadlineExceeded,
}


class HttpTransport:
    """A pool shared by all threads.

    urllib3 rather than tritonclient's own HTTP client, which is bound to the gevent hub of one thread.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        tls = {"ssl_context": _ssl_context(endpoint)} if endpoint.scheme == "https" else {}
        self._pool = urllib3.connection_from_url(
            endpoint.url,
            maxsize=MAX_CONNECTIONS,
            timeout=urllib3.Timeout(total=endpoint.timeout_s),
            retries=False,  # the client retries, by one policy for every transport
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)],
            **tls,
        )

    def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        url, request = self._endpoint.url, encode(call, self._endpoint)
        try:
            response = self._pool.request(
                request.method, f"/{request.path}", body=request.body, headers=request.headers
            )
        except urllib3.exceptions.NewConnectionError as error:  # a TimeoutError to urllib3, but nothing was sent
            raise ServerUnavailable(f"{url}: no connection: {error}") from None
        except urllib3.exceptions.TimeoutError:
            raise DeadlineExceeded(f"{url}: no answer within {self._endpoint.timeout_s} s") from None
        except urllib3.exceptions.ClosedPoolError:
            raise ClientClosed(f"{url}: the client was closed during the call") from None
        except urllib3.exceptions.HTTPError as error:
            raise ServerUnavailable(f"{url}: {error}") from None
        return decode(call, response.status, response.headers, response.data, url=url)

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()


class AsyncHttpTransport:
    """A pool opened within the event loop and so with the first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._ssl = _ssl_context(endpoint) if endpoint.scheme == "https" else True

    async def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        url, request = self._endpoint.url, encode(call, self._endpoint)
        try:
            async with self._session.request(
                request.method,
                f"{url}/{request.path}",
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except TimeoutError:
            raise DeadlineExceeded(f"{url}: no answer within {self._endpoint.timeout_s} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ServerUnavailable(f"{url}: {error or type(error).__name__}") from None
        return decode(call, response.status, response.headers, body, url=url)

    async def close(self) -> None:
        """Close the pool where one was opened."""
        if "_session" in self.__dict__:
            await self._session.close()

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=self._ssl),
            timeout=aiohttp.ClientTimeout(total=self._endpoint.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )


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
    if call.tensor is None:
        body = json.dumps(dict(call.fields)).encode() if call.operation.http_method == "POST" else None
        return HttpRequest(call.operation.http_method, path, body, endpoint.headers)
    body, json_bytes = InferenceServerClient.generate_request_body(
        [_input(call.tensor)], parameters=dict(call.parameters) or None
    )
    headers = {**endpoint.headers, "Accept-Encoding": "identity"}  # 40 bytes a face are not worth compressing
    if json_bytes is not None:
        headers["Inference-Header-Content-Length"] = str(json_bytes)
    if endpoint.compress:
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return HttpRequest("POST", path, body, headers)


def decode(call: Call, status: int, headers: Mapping[str, str], body: bytes, *, url: str) -> Reply:
    """Return the reply's arrays or fields. Raises the error that the status stands for."""
    if call.operation in _PROBES:
        return {_PROBES[call.operation]: status == 200}
    if status != 200:
        raise _ERRORS.get(status, ServerError)(f"{url}: {_message(status, body)}")
    try:
        if call.operation is INFER:
            return _arrays(headers, body)
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


def _arrays(headers: Mapping[str, str], body: bytes) -> Reply:
    json_bytes = headers.get("Inference-Header-Content-Length")
    result = InferResult.from_response_body(body, header_length=json_bytes)
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
