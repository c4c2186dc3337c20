"""Encoded images without what is said about them: a broken word about a picture is no broken picture.

Decoders read metadata and pixels alike, and refuse a file for either. What is left here is what pixels need.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

# JPEG's application segments and comment (ITU-T T.81, table B.1), but for Adobe's (0xEE), which tells the colours.
_JPEG_METADATA = {*range(0xE0, 0xF0), 0xFE} - {0xEE}
_PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_NEEDED = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: an ICC profile, EXIF, XMP follow


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yield a JPEG, PNG or WebP file first with orientation and colour profile alone, then with pixels alone.

    Yields nothing for what has another structure.
    """
    for exif_and_profile in (True, False):
        try:
            if data.startswith(b"\xff\xd8"):
                yield _jpeg(data, keep=(b"Exif\0", b"ICC_PROFILE\0") if exif_and_profile else ())
            elif data.startswith(b"\x89PNG\r\n\x1a\n"):
                yield _png(data, _PNG_NEEDED | ({b"eXIf", b"iCCP"} if exif_and_profile else set()))
            elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
                yield _webp(data, _WEBP_NEEDED | ({b"EXIF", b"ICCP"} if exif_and_profile else set()))
        except (struct.error, IndexError):  # it ends within a header
            return


def _jpeg(data: bytes, keep: tuple[bytes, ...]) -> bytes:
    """Segments up to the scan: a marker of two bytes, a length that counts itself, content."""
    parts, position = [data[:2]], 2
    while data[position : position + 1] == b"\xff":
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        if marker == 0xDA:  # the scan
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position : position + 2 + length]
        adobe_too_short = marker == 0xEE and length < 14
        if not (marker in _JPEG_METADATA or adobe_too_short) or (keep and segment[4:].startswith(keep)):
            parts.append(segment)
        position += 2 + length
    return b"".join([*parts, data[position:]])


def _png(data: bytes, needed: set[bytes]) -> bytes:
    """Chunks: length, type, content, checksum."""
    parts, position = [data[:8]], 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in needed:
            parts.append(data[position : position + 12 + length])
        position += 12 + length
    return b"".join(parts)


def _webp(data: bytes, needed: set[bytes]) -> bytes:
    """Chunks: type, length, content, a byte more where that is odd."""
    parts, position = [b"WEBP"], 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        if kind == b"VP8X":
            flags = data[position + 8] & ~(_WEBP_FLAGS if b"EXIF" not in needed else 0x04)
            parts += [data[position : position + 8], bytes([flags]), data[position + 9 : end]]
        elif kind in needed:
            parts.append(data[position:end])
        position = end
    content = b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(content)) + content
