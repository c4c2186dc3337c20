"""Calls: one request each, in the terms of KServe's v2 protocol with Triton's extensions, which gRPC and HTTP share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any

from numpy.typing import NDArray

from clients.errors import InvalidReply
from contract.spec import ENCODED_IMAGE, ENSEMBLE_NAME, IMAGE, MODEL_NAME, PHOTO_MODEL_NAME, PHOTO_OUTPUTS, TensorSpec

Reply = Mapping[str, Any]  # INFER: output arrays by name; everything else: the reply's fields as HTTP spells them
Parameters = Mapping[str, float | None]  # a model's own, by name; those that are None are not sent


@dataclass(frozen=True)
class Operation:
    """One kind of request."""

    rpc: str  # method of inference.GRPCInferenceService; its request message is <rpc>Request
    http_method: str
    path: str  # below the server's root, with the call's fields in braces


LIVE = Operation("ServerLive", "GET", "v2/health/live")
READY = Operation("ServerReady", "GET", "v2/health/ready")
SERVER_METADATA = Operation("ServerMetadata", "GET", "v2")
MODEL_METADATA = Operation("ModelMetadata", "GET", "v2/models/{name}")
MODEL_CONFIG = Operation("ModelConfig", "GET", "v2/models/{name}/config")
STATISTICS = Operation("ModelStatistics", "GET", "v2/models/stats")
INFER = Operation("ModelInfer", "POST", "v2/models/{model_name}/infer")
REGISTER_REGION = Operation("SystemSharedMemoryRegister", "POST", "v2/systemsharedmemory/region/{name}/register")
UNREGISTER_REGION = Operation("SystemSharedMemoryUnregister", "POST", "v2/systemsharedmemory/region/{name}/unregister")
INPUTS = {MODEL_NAME: IMAGE, ENSEMBLE_NAME: ENCODED_IMAGE, PHOTO_MODEL_NAME: ENCODED_IMAGE}  # what each model takes
ALL_OUTPUTS = PHOTO_OUTPUTS  # of any model; most have a few of them


@dataclass(frozen=True)
class RegionSlice:
    """Where in a shared memory region, known to the server by name, a tensor's bytes lie."""

    name: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class Tensor:
    """An input: its contract and its value, [N, *spec.dims] where the model takes batches.

    `region` already holds the value where there is one.
    """

    spec: TensorSpec
    array: NDArray[Any]
    region: RegionSlice | None = None


@dataclass(frozen=True)
class Call:
    """One request: an operation and its fields; for INFER also the input tensor and the model's own parameters.

    deadline: when nobody waits for the reply any more, in time.monotonic()'s seconds; without one, after `timeout_s`
    id: of an INFER, whose reply has to repeat it
    """

    operation: Operation
    fields: Mapping[str, str | int] = field(default_factory=dict)
    tensor: Tensor | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    deadline: float | None = None
    id: str = ""


def infer_call(
    model: str,
    array: NDArray[Any],
    parameters: Parameters | None = None,
    *,
    deadline: float | None = None,
) -> Call:
    """Return the request to the model, with an id of its own, for an input as `stack` and `prepare_photo` have it."""
    sent = {name: float(value) for name, value in (parameters or {}).items() if value is not None}
    tensor = Tensor(INPUTS[model], array)
    return Call(INFER, {"model_name": model}, tensor, sent, deadline, f"{_sender}-{next(_number)}")


_number = count()
_sender = ""  # no two processes' requests share an id, a forked child's and its parent's neither


def _choose_sender() -> None:
    global _sender
    _sender = token_hex(8)


_choose_sender()
if hasattr(os, "register_at_fork"):  # POSIX
    os.register_at_fork(after_in_child=_choose_sender)


def check_id(call: Call, found: str) -> None:
    """Raise InvalidReply for the answer to another request, whose faces must never be taken for this one's."""
    if found != call.id:
        # The same words each time, so that load tests count them as one kind of error.
        raise InvalidReply("it has the id of another request" if found else "it has no request's id")
