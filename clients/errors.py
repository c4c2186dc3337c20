"""Everything a client raises; nothing of tritonclient, gRPC, urllib3 or aiohttp gets past it.

FaceAttributesError
├── InvalidInput (ValueError)               refused before sending, or by the server; sending it again cannot help
│   └── InvalidImage                        one image that cannot be read; the rest of its batch is answered
├── ContractMismatch                        client and server disagree about the model's tensors
├── InvalidReply                            the server answered, but not with what the contract promises
├── AccessDenied                            missing or wrong credentials
├── ModelNotFound                           the server has no such model
├── ServerError                             the server failed while answering
├── ClientClosed (RuntimeError)             the client is used after close()
├── WrongEventLoop (RuntimeError)           an asynchronous client is used in another event loop than at first
├── UnusableAfterFork (RuntimeError)        grpc:// with asyncio in a child of a process that used it
├── DeadlineExceeded (TimeoutError)         no answer within timeout_s
├── ServerBusy                              refused as too much waits already; tried again, after a longer pause
└── ServerUnavailable (ConnectionError)     refused, reset or not ready; tried again
    └── CircuitOpen                         failed at once, as the server has been unavailable several times in a row
"""

# ruff: noqa: N818  (named for what happened, as in httpx: ReadTimeout, TooManyRedirects)
from __future__ import annotations

from contract.program import UserError
from contract.spec import TRY_AGAIN_LATER


class FaceAttributesError(UserError):
    """Base of every error of this package."""


class InvalidInput(FaceAttributesError, ValueError):
    """The request itself is wrong: shape, type, option or address."""


class InvalidImage(InvalidInput):
    """One image cannot be read or decoded; the message names it where it has a name."""


class ContractMismatch(FaceAttributesError):
    """The server's model has other tensors than `contract.spec`; the message shows both sides."""


class InvalidReply(FaceAttributesError):
    """The reply lacks outputs, has the wrong number of faces or holds values that are not finite."""


class AccessDenied(FaceAttributesError):
    """The server restricts this operation and the headers or certificates given do not open it."""


class ModelNotFound(FaceAttributesError):
    """The server does not serve the model."""


class ServerError(FaceAttributesError):
    """The server failed while working on a valid request."""


class ClientClosed(FaceAttributesError, RuntimeError):
    """The client's connection was closed before or during the call."""


class DeadlineExceeded(FaceAttributesError, TimeoutError):
    """The answer did not arrive in time; not retried, since a slow server is not helped by more work."""


class WrongEventLoop(FaceAttributesError, RuntimeError):
    """An asynchronous client is used in another event loop than that of its first call."""


class UnusableAfterFork(FaceAttributesError, RuntimeError):
    """A library below cannot work in this forked process; the message names the ways out."""


class ServerBusy(FaceAttributesError):
    """The server refused at once, as too much waits already; it lives, so this neither opens a circuit nor hurries."""


class ServerUnavailable(FaceAttributesError, ConnectionError):
    """Nothing answers at the address, or the connection broke; inference has no side effects, so a retry is safe."""


class CircuitOpen(ServerUnavailable):
    """The server was unavailable several times in a row; calls fail at once until the next trial."""


class SharedMemoryWarning(UserWarning):
    """Shared memory was asked for and cannot be used with this server; requests carry their images instead."""


_BY_WORDS: tuple[tuple[str, type[FaceAttributesError]], ...] = (  # where the server's words say more than its status
    ("protocol is restricted", AccessDenied),  # UNAVAILABLE where a header is missing
    (TRY_AGAIN_LATER, ServerBusy),
    ("exceeds maximum queue size", ServerBusy),  # of Triton's own batcher
    ("timeout expired", DeadlineExceeded),  # the same: the request's deadline passed while it waited
    ("is not healthy", ServerUnavailable),  # "Stub process '...' is not healthy": the model's process died
)


def error_class(by_status: type[FaceAttributesError], words: str) -> type[FaceAttributesError]:
    """Return the error that a failed call's status and words stand for together."""
    if by_status in (ServerError, ServerUnavailable):
        lower = words.lower()
        return next((kind for said, kind in _BY_WORDS if said in lower), by_status)
    return by_status
