"""Clients of the served model: age, gender and emotion of faces, over gRPC or HTTP."""

from clients.client import FaceAttributesClient
from clients.errors import (
    AccessDenied,
    CircuitOpen,
    ContractMismatch,
    DeadlineExceeded,
    FaceAttributesError,
    InvalidImage,
    InvalidInput,
    InvalidReply,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
)
from clients.faces import Face

__all__ = [
    "AccessDenied",
    "CircuitOpen",
    "ContractMismatch",
    "DeadlineExceeded",
    "Face",
    "FaceAttributesClient",
    "FaceAttributesError",
    "InvalidImage",
    "InvalidInput",
    "InvalidReply",
    "ModelNotFound",
    "ServerError",
    "ServerUnavailable",
]
