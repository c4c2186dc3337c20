"""What the programs of this package have in common: how the server is reached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.errors import InvalidInput
from clients.wire.endpoint import Tls
from contract.headers import HeadersError, read_headers
from contract.spec import GRPC_PORT


@dataclass(frozen=True)
class ServerConnection:
    """The server and how to reach it."""

    url: str = f"grpc://127.0.0.1:{GRPC_PORT}"  # grpc, grpcs, http or https
    timeout_s: float = 10.0  # of one request
    retry_for_s: float = 2.0  # how long a server that is unavailable is tried again
    shared_memory: bool = False  # on the server's own host: requests without pixels
    compress: bool = False  # gzip requests, for slow links
    headers_file: Path | None = None  # lines "name: value"; a file, as others can read a command line
    ca_file: Path | None = None  # PEM; without it the system's authorities are trusted
    certificate_file: Path | None = None  # the client's own, PEM, where the server asks for one
    key_file: Path | None = None  # its private key

    def options(self) -> dict[str, Any]:
        """Return keyword arguments of either client. Raises InvalidInput for a headers file that cannot be read."""
        try:
            headers = read_headers(self.headers_file) if self.headers_file else None
        except HeadersError as error:
            raise InvalidInput(str(error)) from error
        return {
            "timeout_s": self.timeout_s,
            "retry_for_s": self.retry_for_s,
            "shared_memory": self.shared_memory,
            "compress": self.compress,
            "headers": headers,
            "tls": Tls(self.ca_file, self.certificate_file, self.key_file),
        }
