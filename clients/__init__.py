"""Clients of the served model: age, gender and emotion of faces, over gRPC or HTTP."""

from clients.aio import AsyncFaceAttributesClient
from clients.client import FaceAttributesClient
from clients.connection import Tls
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
    ServerError,
    ServerUnavailable,
    SharedMemoryWarning,
)
from clients.faces import Face
from clients.resilience import Circuit
from clients.status import Health, ModelStatistics

__all__ = [
    "AccessDenied",
    "AsyncFaceAttributesClient",
    "Circuit",
    "CircuitOpen",
    "ClientClosed",
    "ContractMismatch",
    "DeadlineExceeded",
    "Face",
    "FaceAttributesClient",
    "FaceAttributesError",
    "Health",
    "InvalidImage",
    "InvalidInput",
    "InvalidReply",
    "ModelNotFound",
    "ModelStatistics",
    "ServerError",
    "ServerUnavailable",
    "SharedMemoryWarning",
    "Tls",
]
