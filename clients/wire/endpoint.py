"""Where a server is and how to reach it: address, time, headers, TLS files."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from clients.calls import Call
from clients.errors import DeadlineExceeded, InvalidInput
from contract.headers import local_headers
from contract.spec import GRPC_PORT, HTTP_PORT

SCHEMES = ("grpc", "grpcs", "http", "https")
DEFAULT_PORTS = {"grpc": GRPC_PORT, "grpcs": GRPC_PORT, "http": HTTP_PORT, "https": HTTP_PORT}


@dataclass(frozen=True)
class Tls:
    """Files in PEM for grpcs:// and https://; without `ca_file` the system's authorities are trusted."""

    ca_file: Path | None = None
    certificate_file: Path | None = None  # the client's own, with its key, where the server asks for one
    key_file: Path | None = None


@dataclass(frozen=True)
class Endpoint:
    """How to reach one server; headers are left out of repr, since they carry credentials."""

    scheme: str
    authority: str  # host:port
    timeout_s: float
    given_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Tls = field(default_factory=Tls)
    compress: bool = False

    @classmethod
    def at(
        cls,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        compress: bool = False,
    ) -> Endpoint:
        """Return the endpoint at scheme://host[:port]. Raises InvalidInput for anything that cannot be meant."""
        scheme, authority = _parse(url)
        if not timeout_s > 0:
            raise InvalidInput(f"timeout_s must be above 0, got {timeout_s}")
        return cls(
            scheme, authority, timeout_s, _sendable(headers or {}), _matching_tls(scheme, tls or Tls()), compress
        )

    @property
    def headers(self) -> dict[str, str]:
        """Return what goes with a request now: what was given, and the key of a server of this user on this machine."""
        return {**local_headers(self.authority), **self.given_headers}

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def is_grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    def seconds_left(self, call: Call) -> float:
        """Return how long a call may still take. Raises DeadlineExceeded."""
        if call.deadline is None:
            return self.timeout_s
        if (left_s := call.deadline - time.monotonic()) <= 0:
            raise DeadlineExceeded(f"{self.url}: no answer within {self.timeout_s} s")
        return left_s

    def microseconds_left(self, call: Call) -> int:
        """Return the same as Triton's request parameter `timeout` has it, by which a server drops what is too late."""
        return max(1, int(1e6 * self.seconds_left(call)))  # 0 would be none


def _parse(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.username or parts.password:  # the url itself would end up in logs, so it is not repeated here
        raise InvalidInput("the url holds credentials; pass them as headers=..., which are never logged")
    if parts.scheme not in SCHEMES or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InvalidInput(f"url {url!r} is not scheme://host:port with a scheme of {', '.join(SCHEMES)}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port or DEFAULT_PORTS[parts.scheme]}"


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as both protocols allow them, in lower case, on which gRPC insists. An error shows no value."""
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", value):
            raise InvalidInput(
                f"header {name!r}: a name has letters, digits and _.- only, a value printable ASCII only"
            )
    return {name.lower(): value for name, value in headers.items()}


def _matching_tls(scheme: str, tls: Tls) -> Tls:
    if tls != Tls() and scheme not in ("grpcs", "https"):
        raise InvalidInput(f"certificates are given, but {scheme}:// is not encrypted; use grpcs:// or https://")
    if (tls.certificate_file is None) != (tls.key_file is None):
        raise InvalidInput("a client's certificate and its key go together; give both files or neither")
    return tls
