"""Calls over gRPC: one HTTP/2 channel a client. The synchronous transport comes first, then the asynchronous one."""

from __future__ import annotations

import os
import threading
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import serialize_byte_tensor

from clients.calls import ALL_OUTPUTS, INFER, MODEL_CONFIG, Call, Reply, Tensor, check_id
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
    UnusableAfterFork,
    error_class,
)
from clients.wire.endpoint import Endpoint
from clients.wire.forks import LoopBound, leave_to_parent, start_anew_after_fork

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    # Receiving stays at gRPC's default of 4 MiB: a reply of ours is small, and one without end would fill the memory.
    # Finds a dead peer behind a silent link. A server ends a connection ("too many pings") that is pinged more often
    # than every 5 minutes while it works on a long call; what is sent and not acknowledged ends it after the timeout.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # a forked child's connection would else be its parent's
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # gRPC's default of two minutes would outlast a server's restart by far
    ("grpc.enable_http_proxy", 0),  # as with http://: the address given is the one connected to
]
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


class GrpcTransport:
    """One channel, shared by all threads; it connects with the first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._credentials = _credentials(endpoint)
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Also in a forked child, where a channel that only the parent may close is left alone."""
        if "_channel" in vars(self):
            leave_to_parent(self._channel, self._stub)
        self._lock = threading.Lock()
        self._channel: Any = None
        self._stub: Any = None

    def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        method = getattr(self._stub or self._open(), call.operation.rpc)
        try:
            message = method(encode(call, self._endpoint), **_call_options(call, self._endpoint))
        except grpc.RpcError as error:
            raise error_of(error, url=self._endpoint.url) from None
        return decode(call, message, url=self._endpoint.url)

    def close(self) -> None:
        """Close the channel where one was opened."""
        if self._channel:
            self._channel.close()

    def _open(self) -> Any:
        with self._lock:  # of threads whose first calls come together, one opens it
            if self._stub is None:
                self._channel = _open_channel(grpc, self._endpoint, self._credentials)
                self._stub = GRPCInferenceServiceStub(self._channel)
            return self._stub


class AsyncGrpcTransport:
    """One channel, opened within the event loop and so with the first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        credentials = _credentials(endpoint)
        self._channel: LoopBound[Any] = LoopBound(lambda: _open_aio_channel(endpoint, credentials))
        self._stub: Any = None
        self._stub_of: Any = None  # the channel

    async def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""
        if (channel := self._channel.get()) is not self._stub_of:
            self._stub, self._stub_of = GRPCInferenceServiceStub(channel), channel
        method = getattr(self._stub, call.operation.rpc)
        try:
            message = await method(encode(call, self._endpoint), **_call_options(call, self._endpoint))
        except grpc.RpcError as error:
            raise error_of(error, url=self._endpoint.url) from None
        return decode(call, message, url=self._endpoint.url)

    async def close(self) -> None:
        """Close the channel where one was opened."""
        if channel := self._channel.opened:
            await channel.close()


def encode(call: Call, endpoint: Endpoint) -> Any:
    """Return the request message."""
    message = getattr(service_pb2, f"{call.operation.rpc}Request")(**call.fields)
    if call.tensor is not None:
        message.id = call.id
        message.parameters["timeout"].int64_param = endpoint.microseconds_left(call)
        _put(call.tensor, message)
    for name, value in call.parameters.items():
        message.parameters[name].double_param = value
    return message


def decode(call: Call, message: Any, *, url: str) -> Reply:
    """Return the reply's arrays or fields; numbers of 64 bits are strings there, as protobuf's JSON mapping has them.

    Raises InvalidReply where the tensors cannot be read.
    """
    if call.operation is not INFER:
        content = message.config if call.operation is MODEL_CONFIG else message  # HTTP has it one level higher
        fields: Reply = MessageToDict(
            content, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return fields
    result = InferResult(message)
    try:
        check_id(call, message.id)
        return {t.name: array for t in ALL_OUTPUTS if (array := result.as_numpy(t.name)) is not None}
    except Exception as error:  # tritonclient's parser lets struct.error, ValueError and others through
        raise InvalidReply(f"{url}: the reply's tensors cannot be read: {error}") from error


def error_of(rpc_error: grpc.RpcError, *, url: str) -> FaceAttributesError:
    """Return a failed call's error; the metadata sent, which may hold secrets, is not repeated in it."""
    details = rpc_error.details() or rpc_error.code().name
    kind = error_class(_ERRORS.get(rpc_error.code(), ServerError), details)
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


def _call_options(call: Call, endpoint: Endpoint) -> dict[str, Any]:
    return {"timeout": endpoint.seconds_left(call), "metadata": tuple(endpoint.headers.items())}


_aio_used_by = set[int]()  # ids of processes, this one's parents among them


def _open_aio_channel(endpoint: Endpoint, credentials: grpc.ChannelCredentials | None) -> Any:
    """Raises UnusableAfterFork: gRPC's asyncio rests on a thread of the first process, without which it aborts."""
    if _aio_used_by - {os.getpid()}:
        raise UnusableAfterFork(
            "gRPC's asyncio cannot be used in a process forked from one that used it; "
            "use http://, fork before the first call, or start processes by spawn"
        )
    _aio_used_by.add(os.getpid())
    return _open_channel(grpc.aio, endpoint, credentials)


def _open_channel(module: Any, endpoint: Endpoint, credentials: grpc.ChannelCredentials | None) -> Any:
    """A channel of `grpc` or `grpc.aio`."""
    compression = grpc.Compression.Gzip if endpoint.compress else grpc.Compression.NoCompression
    if credentials:
        return module.secure_channel(endpoint.authority, credentials, _OPTIONS, compression)
    return module.insecure_channel(endpoint.authority, _OPTIONS, compression)


def _credentials(endpoint: Endpoint) -> grpc.ChannelCredentials | None:
    """None without TLS. Raises InvalidInput for a file that cannot be read."""
    if endpoint.scheme != "grpcs":
        return None
    files = (endpoint.tls.ca_file, endpoint.tls.key_file, endpoint.tls.certificate_file)
    try:
        return grpc.ssl_channel_credentials(*(path.read_bytes() if path else None for path in files))
    except OSError as error:
        raise InvalidInput(f"TLS file {error.filename}: {error.strerror}") from error
