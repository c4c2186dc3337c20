"""Where the server is and how to reach it: address, deadline, TLS, headers, keepalive.

No I/O but reading certificates.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from clients.errors import InvalidInput
from contract.spec import GRPC_PORT, HTTP_PORT

SCHEMES = ("grpc", "grpcs", "http", "https")
DEFAULT_PORTS = {"grpc": GRPC_PORT, "grpcs": GRPC_PORT, "http": HTTP_PORT, "https": HTTP_PORT}
KEEPALIVE_MS = 30_000  # finds a dead peer behind a silent link; servers allow no more than one ping in 5 minutes idle
MAX_RECONNECT_MS = 1_000  # gRPC's default of two minutes would outlast a server's restart by far


@dataclass(frozen=True)
class Tls:
    """Files in PEM for grpcs:// and https://; without `ca_file` the system's authorities are trusted."""

    ca_file: Path | None = None
    certificate_file: Path | None = None  # the client's own, with its key, where the server asks for one
    key_file: Path | None = None


@dataclass(frozen=True)
class Connection:
    """How to reach one server; headers are left out of repr, since they carry credentials."""

    scheme: str
    authority: str  # host:port
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Tls = field(default_factory=Tls)
    compress: bool = False
    max_connections: int = 64

    @classmethod
    def to(
        cls,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        compress: bool = False,
    ) -> Connection:
        """From scheme://host[:port]. Raises InvalidInput for anything that cannot be meant."""
        scheme, authority = _parse(url)
        if not timeout_s > 0:
            raise InvalidInput(f"timeout_s must be above 0, got {timeout_s}")
        return cls(scheme, authority, timeout_s, _checked(headers or {}), _suiting(scheme, tls or Tls()), compress)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def is_grpc(self) -> bool:
        return self.scheme.startswith("grpc")

    @property
    def grpc_compression(self) -> grpc.Compression:
        return grpc.Compression.Gzip if self.compress else grpc.Compression.NoCompression

    @property
    def grpc_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.headers.items())

    def grpc_options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", MAX_RECONNECT_MS),
            ("grpc.enable_http_proxy", 0),  # as with http://: the address given is the one connected to
        ]

    def grpc_credentials(self) -> grpc.ChannelCredentials | None:
        """None without TLS. Raises InvalidInput for a file that cannot be read."""
        if self.scheme != "grpcs":
            return None
        files = (self.tls.ca_file, self.tls.key_file, self.tls.certificate_file)
        try:
            return grpc.ssl_channel_credentials(*(path.read_bytes() if path else None for path in files))
        except OSError as error:
            raise InvalidInput(f"TLS file {error.filename}: {error.strerror}") from error

    def ssl_context(self) -> ssl.SSLContext:
        """Raises InvalidInput for a file that cannot be read or is not PEM."""
        try:
            context = ssl.create_default_context(cafile=self.tls.ca_file)
            if self.tls.certificate_file:
                context.load_cert_chain(self.tls.certificate_file, self.tls.key_file)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidInput(f"TLS files {self.tls}: {error}") from error
        return context


def _suiting(scheme: str, tls: Tls) -> Tls:
    if tls != Tls() and scheme not in ("grpcs", "https"):
        raise InvalidInput(f"certificates are given, but {scheme}:// is not encrypted; use grpcs:// or https://")
    if (tls.certificate_file is None) != (tls.key_file is None):
        raise InvalidInput("a client's certificate and its key go together; give both files or neither")
    return tls


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as both protocols allow them, in lower case, on which gRPC insists. An error shows no value."""
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", value):
            raise InvalidInput(
                f"header {name!r}: a name has letters, digits and _.- only, a value printable ASCII only"
            )
    return {name.lower(): value for name, value in headers.items()}


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
