"""The key that locks a server: without it only health answers, over HTTP and gRPC.

python -m serving.lock  # for compose.yaml: makes a key, leaves it where this user's programs look, and prints it

Triton compares it before it parses a body. Web pages cannot send such a header, and other users cannot read its file.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from contract import program
from contract.files import replacing
from contract.headers import FOLDER_VARIABLE, local_headers_path
from contract.spec import GRPC_PORT, HTTP_PORT
from serving.errors import SetupError

KEY_VARIABLE = "AGEGENDERNET_KEY"  # a key that is to stay the same; without it every server has a new one
KEY_HEADER = "agegendernet-key"
_APIS = "inference,metadata,model-config,model-repository,shared-memory,statistics,trace,logging"  # all but health


@dataclass(frozen=True)
class Lock:
    """A key, and what becomes of it. Raises SetupError for one that Triton's options could not hold."""

    key: str = field(default_factory=lambda: os.environ.get(KEY_VARIABLE) or secrets.token_urlsafe(32), repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", self.key):
            raise SetupError(f"the key in {KEY_VARIABLE} must have at least 16 characters, of A-Z a-z 0-9 _ - alone")

    @property
    def headers(self) -> dict[str, str]:
        """Return what opens either protocol."""
        return {KEY_HEADER: self.key, f"triton-grpc-protocol-{KEY_HEADER}": self.key}

    @property
    def arguments(self) -> list[str]:
        """Return the options of tritonserver, which takes a key in no other way."""
        return [f"--{option}={_APIS}:{KEY_HEADER}={self.key}" for option in _OPTIONS]

    def publish(self, port: int) -> None:
        """Leave the headers where this user's programs find them. Raises SetupError."""
        path = local_headers_path(port)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(path) as temporary:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.writelines(f"{name}: {value}\n" for name, value in self.headers.items())
        except OSError as error:
            raise SetupError(
                f"the server's key cannot be written to {path} ({error.strerror}); name a folder of yours in "
                f"{FOLDER_VARIABLE}, or serve without a key: --open"
            ) from error

    def hide(self, pid: int) -> None:
        """Overwrite the key in the arguments of a process that has read them, where every user can see them.

        Does nothing where the system lets no process write to its child's memory.
        """
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
            with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
                memory.seek(start)
                arguments = memory.read(end - start)
                memory.seek(start)
                memory.write(arguments.replace(self.key.encode(), b"*" * len(self.key)))


_OPTIONS = ("http-restricted-api", "grpc-restricted-protocol")


def withdraw(port: int) -> None:
    """Remove what `publish` left, if anything."""
    with suppress(OSError):
        local_headers_path(port).unlink()


def main(ports: Sequence[int] = (HTTP_PORT, GRPC_PORT)) -> None:
    """Make a key for a server at these ports that something else starts."""
    lock = Lock()
    for port in ports:
        lock.publish(port)
    print(lock.key)


if __name__ == "__main__":
    program.run(lambda: main(tuple(map(int, sys.argv[1:])) or (HTTP_PORT, GRPC_PORT)))
