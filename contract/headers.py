"""HTTP headers, or gRPC metadata, from a file: credentials on a command line could be read by every other user.

A server on this machine leaves the headers that open it in such a file, where programs of the same user look for it.
"""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path

from contract.program import UserError

FOLDER_VARIABLE = "AGEGENDERNET_KEYS"  # names another folder for the files of servers on this machine
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class HeadersError(UserError, ValueError):
    """A headers file cannot be read; the message names it and shows none of its values."""


def read_headers(path: Path) -> dict[str, str]:
    """Read lines "name: value"; names become lower case, on which gRPC insists. Raises HeadersError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise HeadersError(f"headers file {path}: {reason}") from None
    headers = {}
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if line.strip() and not (colon and name.strip()):
            raise HeadersError(f"headers file {path}, line {number}: write 'name: value'")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers


def local_headers_path(port: int) -> Path:
    """Return where the server at this port of this machine leaves the headers that open it, for its own user."""
    # The host's name, because a home folder may be shared by machines.
    folder = Path(os.environ.get(FOLDER_VARIABLE) or Path("~/.cache/agegendernet").expanduser())
    return folder / f"{socket.gethostname()}-{port}"


def local_headers(authority: str) -> dict[str, str]:
    """Return the headers that open the server at host:port; none unless one of this user left them on this machine.

    A server that is started again has another key, so this is to be asked before every request; it costs one stat.
    """
    host, _, port = authority.rpartition(":")
    if host not in _LOOPBACK:
        return {}
    path = local_headers_path(int(port))
    try:
        status = path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:  # somebody else may have written or read it
            return {}
        return dict(_read(path, status.st_ino, status.st_mtime_ns))
    except (OSError, HeadersError):  # there is none, or it is replaced at this moment
        return {}


@lru_cache(64)
def _read(path: Path, _inode: int, _mtime_ns: int) -> dict[str, str]:
    return read_headers(path)
