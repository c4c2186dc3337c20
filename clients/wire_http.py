"""Calls as HTTP requests and back. No I/O: both HTTP transports share it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

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
from clients.protocol import INFER, PROBES, Call, Reply, Tensor
from contract.spec import OUTPUTS

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


@dataclass(frozen=True)
class HttpRequest:
    """What a transport sends; the path is relative to the server's root."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def encode(call: Call, *, compress: bool = False) -> HttpRequest:
    """The request's method, path, body and headers."""
    path = call.operation.path.format(**{name: quote(str(value), safe="") for name, value in call.fields.items()})
    if call.tensor is None:
        body = json.dumps(dict(call.fields)).encode() if call.operation.http_method == "POST" else None
        return HttpRequest(call.operation.http_method, path, body)
    body, json_bytes = InferenceServerClient.generate_request_body([_input(call.tensor)])
    headers = {"Accept-Encoding": "identity"}  # 40 bytes a face are not worth compressing
    if json_bytes is not None:
        headers["Inference-Header-Content-Length"] = str(json_bytes)
    if compress:
        body = gzip.compress(body, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return HttpRequest("POST", path, body, headers)


def decode(call: Call, status: int, headers: Mapping[str, str], body: bytes, *, url: str) -> Reply:
    """The reply's arrays or fields. Raises the error that the status stands for."""
    if call.operation in PROBES:
        return {PROBES[call.operation]: status == 200}
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
    return {t.name: array for t in OUTPUTS if (array := result.as_numpy(t.name)) is not None}


def _message(status: int, body: bytes) -> str:
    """Triton's own words where the body has them."""
    try:
        content: Any = json.loads(body)
        return str(content["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}"
