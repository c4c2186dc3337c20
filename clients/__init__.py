"""Clients of the served model: age, gender and emotion of faces, over gRPC or HTTP."""

from clients.aio import AsyncFaceAttributesClient
from clients.client import DEFAULT_IN_FLIGHT, FaceAttributesClient, Wire
from clients.errors import (
    AccessDenied,
    CircuitOpen,
    ClientClosed,
    ContractMismatch,
    DeadlineExceeded,
    FaceAttributesError,
    InvalidImage,
    InvalidInput,
    InvalidReply,
    ModelNotFound,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    SharedMemoryWarning,
    UnusableAfterFork,
    WrongEventLoop,
)
from clients.messages import DetectedFace, DetectedFaces, FaceAttributes
from clients.status import Health, ModelStatistics
from clients.wire.endpoint import Tls
from clients.wire.resilience import Circuit

__all__ = [
    "DEFAULT_IN_FLIGHT",
    "AccessDenied",
    "AsyncFaceAttributesClient",
    "Circuit",
    "CircuitOpen",
    "ClientClosed",
    "ContractMismatch",
    "DeadlineExceeded",
    "DetectedFace",
    "DetectedFaces",
    "FaceAttributes",
    "FaceAttributesClient",
    "FaceAttributesError",
    "Health",
    "InvalidImage",
    "InvalidInput",
    "InvalidReply",
    "ModelNotFound",
    "ModelStatistics",
    "ServerBusy",
    "ServerError",
    "ServerUnavailable",
    "SharedMemoryWarning",
    "Tls",
    "UnusableAfterFork",
    "Wire",
    "WrongEventLoop",
]
