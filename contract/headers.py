"""HTTP headers, or gRPC metadata, from a file: credentials on a command line could be read by every other user."""

from __future__ import annotations

from pathlib import Path

from contract.program import UserError


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
