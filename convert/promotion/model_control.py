"""Telling a running Triton server, started with --model-control-mode=explicit, that the repository has changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from contract.headers import HeadersError, local_headers, read_headers
from contract.program import UserError
from contract.spec import GRPC_PORT, MODEL_NAME

_OPTIONS = [("grpc.enable_http_proxy", 0)]  # as in clients: the address given is the one connected to
_SCHEMES = {"grpc": False, "grpcs": True}  # and whether over TLS


READY_WITHIN_S = 10.0  # of a version that has been loaded: an answer may be lost, and is asked for again

# After these the server may have loaded the version all the same.
_LOST = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED", "StatusCode.UNKNOWN")


class ModelControlError(UserError, RuntimeError):
    """The server did not load the version; what it served before, it still serves."""


class OutcomeUnknownError(ModelControlError):
    """The server's answer was lost: it may serve the version or not."""


def load_version(url: str, number: int, *, headers_file: Path | None = None, timeout_s: float = 300.0) -> float:
    """Have the server load the highest version, which must be `number`; return the seconds until it served.

    The version served so far answers until the new one is ready, and what it has taken on to the end. Raises
    ModelControlError; OutcomeUnknownError where the answer was lost.
    """
    scheme, separator, address = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ModelControlError(f"{url} is not a gRPC address of the server, such as grpc://127.0.0.1:{GRPC_PORT}")
    try:
        headers = read_headers(headers_file) if headers_file else local_headers(address)
    except HeadersError as error:
        raise ModelControlError(str(error)) from error
    with grpc.InferenceServerClient(address, ssl=_SCHEMES[scheme], channel_args=_OPTIONS) as client:
        started = time.perf_counter()
        try:
            client.load_model(MODEL_NAME, headers=headers, client_timeout=timeout_s)
            seconds = time.perf_counter() - started
            ready = _is_ready(client, number, headers)
        except InferenceServerException as error:
            lost = error.status() in _LOST and "protocol is restricted" not in str(error)
            kind = OutcomeUnknownError if lost else ModelControlError
            raise kind(f"the server at {url} did not load {MODEL_NAME} {number}: {error}") from error
    if not ready:
        raise ModelControlError(f"the server at {url} does not serve version {number}: is its repository another one?")
    return seconds


def _is_ready(client: Any, number: int, headers: dict[str, str] | None) -> bool:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            return bool(client.is_model_ready(MODEL_NAME, str(number), headers=headers, client_timeout=READY_WITHIN_S))
        except InferenceServerException as error:
            if error.status() not in _LOST or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
