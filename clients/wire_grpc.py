"""Calls as gRPC messages and back. No I/O: both gRPC transports share it."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import serialize_byte_tensor

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
from clients.protocol import INFER, Call, Reply, Tensor
from contract.spec import OUTPUTS

_ERRORS: dict[grpc.StatusCode, type[FaceAttributesError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.ALREADY_EXISTS: InvalidInput,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.CANCELLED: ClientClosed,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
}


def encode(call: Call) -> Any:
    """The request message."""
    message = getattr(service_pb2, f"{call.operation.rpc}Request")(**call.fields)
    if call.tensor is not None:
        _put(call.tensor, message)
    return message


def decode(call: Call, message: Any, *, url: str) -> Reply:
    """The reply's arrays or fields. Numbers of 64 bits arrive as strings, as protobuf's JSON mapping has them."""
    if call.operation is not INFER:
        fields: Reply = MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return fields
    result = InferResult(message)
    try:
        return {t.name: array for t in OUTPUTS if (array := result.as_numpy(t.name)) is not None}
    except Exception as error:  # tritonclient's parser lets struct.error, ValueError and others through
        raise InvalidReply(f"{url}: the reply's tensors cannot be read: {error}") from error


def error(rpc_error: grpc.RpcError, *, url: str) -> FaceAttributesError:
    """The failed call as an error of this package; the metadata sent, which may hold secrets, is not repeated."""
    details = rpc_error.details() or rpc_error.code().name
    kind = _ERRORS.get(rpc_error.code(), ServerError)
    if "protocol is restricted" in details:  # Triton answers UNAVAILABLE where a header is missing
        kind = AccessDenied
    return kind(f"{url}: {details}")


def _put(tensor: Tensor, message: Any) -> None:
    wire = message.inputs.add(name=tensor.spec.name, datatype=tensor.spec.dtype, shape=tensor.array.shape)
    if tensor.region:
        wire.parameters["shared_memory_region"].string_param = tensor.region.name
        wire.parameters["shared_memory_offset"].int64_param = tensor.region.offset
        wire.parameters["shared_memory_byte_size"].int64_param = tensor.region.byte_size
    elif tensor.spec.dtype == "BYTES":
        message.raw_input_contents.append(serialize_byte_tensor(tensor.array).item())
    else:
        message.raw_input_contents.append(tensor.array.tobytes())
