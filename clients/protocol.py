"""What is asked of a Triton server, independent of how it travels, and where each question lives in gRPC and HTTP.

Both are the same protocol, KServe v2 with Triton's extensions, so one table names both forms.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from numpy.typing import NDArray

from contract.spec import TensorSpec

T = TypeVar("T")
Reply = Mapping[str, Any]  # infer: output arrays by name; everything else: the reply's fields as HTTP spells them


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
STATISTICS = Operation("ModelStatistics", "GET", "v2/models/stats")
INFER = Operation("ModelInfer", "POST", "v2/models/{model_name}/infer")
REGISTER_REGION = Operation("SystemSharedMemoryRegister", "POST", "v2/systemsharedmemory/region/{name}/register")
UNREGISTER_REGION = Operation("SystemSharedMemoryUnregister", "POST", "v2/systemsharedmemory/region/{name}/unregister")
PROBES = {LIVE: "live", READY: "ready"}  # HTTP answers these with a status alone


@dataclass(frozen=True)
class RegionSlice:
    """Where in a shared memory region, known to the server by name, a tensor's bytes lie."""

    name: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class Tensor:
    """An input: its contract and its value, [N, *spec.dims], which `region` already holds where there is one."""

    spec: TensorSpec
    array: NDArray[Any]
    region: RegionSlice | None = None


@dataclass(frozen=True)
class Call:
    """One request: an operation, its fields and, for INFER, the input tensor."""

    operation: Operation
    fields: Mapping[str, str | int] = field(default_factory=dict)
    tensor: Tensor | None = None


Flow = Generator[Call, Reply, T]  # yields calls, is sent their replies, returns what they were made for
