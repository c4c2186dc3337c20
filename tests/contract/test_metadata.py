"""What is said about a picture may be broken in any way; the pixels count."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from contract.images import ImageError, canonical, canonical_picture, upright_photo

TURNED = 6  # EXIF orientation: a quarter to the left is stored


def encoded(suffix: str, orientation: int | None = None) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    picture = Image.fromarray(pixels).resize((60, 90), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    options = {"exif": exif(orientation)} if orientation else {}
    picture.save(buffer, suffix, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0\0\0\0"


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(kind: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", crc)


JPEG_CONTENTS = {
    "exif is no TIFF": (0xE1, b"Exif\0\0garbage that is no TIFF"),
    "exif is empty": (0xE1, b"Exif\0\0"),
    "exif ends in its header": (0xE1, b"Exif\0\0II*\0"),
    "exif points beyond its end": (0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
    "exif has too many entries": (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40)),
    "exif with a negative orientation": (0xE1, exif(1)[:24] + b"\xff\xff\xff\xff" + exif(1)[28:]),
    "pictures' index is garbage": (0xE2, b"MPF\0garbage"),
    "colour profile is short": (0xE2, b"ICC_PROFILE\0"),
    "colour profile of parts that are missing": (0xE2, b"ICC_PROFILE\0\x01\x09garbage"),
    "photoshop's resources end early": (0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\xff\xff"),
}
# Every start of every segment that a decoder may look into.
WHOLE = {
    0xE0: b"JFIF\0\x01\x02\x01\0H\0H\0\0",
    0xE1: exif(1),
    0xE2: b"MPF\0II*\0\x08\0\0\0\x01\0",
    0xED: b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16),
    0xEE: b"Adobe\0d\0\0\0\0\x01",
}
SHORT = {f"{marker:#x} of {n} bytes": (marker, whole[:n]) for marker, whole in WHOLE.items() for n in range(len(whole))}


@pytest.mark.parametrize(
    ("marker", "content"), [*JPEG_CONTENTS.values(), *SHORT.values()], ids=[*JPEG_CONTENTS, *SHORT]
)
@pytest.mark.parametrize("after_density", [True, False])
def test_a_jpeg_with_an_odd_segment_is_the_same_picture(marker: int, content: bytes, after_density: bool) -> None:
    plain = encoded("jpeg")
    jfif_end = 2 + 2 + struct.unpack_from(">H", plain, 4)[0]
    start = (b"\xff\xd8" + segment(0xE0, WHOLE[0xE0])) if after_density else b"\xff\xd8"
    odd = start + segment(marker, content) + plain[jfif_end:]
    np.testing.assert_array_equal(canonical(odd), canonical(plain))


LONG = zlib.compress(bytes(1_400_000))
PNG_CHUNKS = {
    "international text of 1.4 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + LONG),
    "compressed text of 1.4 MB": chunk(b"zTXt", b"Comment\0\0" + LONG),
    "compressed text that is garbage": chunk(b"zTXt", b"Comment\0\0garbage"),
    "text of an unknown compression": chunk(b"zTXt", b"Comment\0\x07garbage"),
    "text with a wrong checksum": chunk(b"tEXt", b"Comment\0hello", checksum=0),
    "colour profile that is garbage": chunk(b"iCCP", b"icc\0\0garbage"),
    "colour profile of 1.4 MB": chunk(b"iCCP", b"icc\0\0" + LONG),
    "exif that is garbage": chunk(b"eXIf", b"garbage"),
    "exif with a wrong checksum": chunk(b"eXIf", exif(1)[6:], checksum=0),
    "exif in text that is garbage": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  3\nzz"),
    **{
        f"{kind.decode()} that is short": chunk(kind, b"\x01") for kind in (b"pHYs", b"gAMA", b"cHRM", b"tIME", b"acTL")
    },
    **{f"{kind.decode()} that is empty": chunk(kind, b"") for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"iCCP")},
}


@pytest.mark.parametrize("odd", PNG_CHUNKS.values(), ids=PNG_CHUNKS)
@pytest.mark.parametrize("before_pixels", [True, False])
def test_a_png_with_an_odd_chunk_is_the_same_picture(odd: bytes, before_pixels: bool) -> None:
    plain = encoded("png")
    place = 8 + 25 if before_pixels else len(plain) - 12
    np.testing.assert_array_equal(canonical(plain[:place] + odd + plain[place:]), canonical(plain))


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"II*\0", exif(1)[:20], b"\xff" * 40], ids=["empty", "text", "short", "cut", "ones"]
)
@pytest.mark.parametrize(("kind", "flag"), [(b"EXIF", 0x08), (b"XMP ", 0x04), (b"ICCP", 0x20)], ids=lambda k: str(k))
def test_a_webp_with_odd_metadata_is_the_same_picture(kind: bytes, flag: int, content: bytes) -> None:
    plain = encoded("webp")
    extended = b"VP8X" + struct.pack("<IBBH", 10, flag, 0, 0) + (59).to_bytes(3, "little") + (89).to_bytes(3, "little")
    odd = kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    chunks = extended + (odd + plain[12:] if kind == b"ICCP" else plain[12:] + odd)
    data = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
    np.testing.assert_array_equal(canonical(data), canonical(plain))


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
def test_an_orientation_that_can_be_read_counts_beside_what_cannot(suffix: str) -> None:
    turned = encoded(suffix, TURNED)
    if suffix == "jpeg":
        odd = turned[:2] + segment(*JPEG_CONTENTS["pictures' index is garbage"]) + turned[2:]
    elif suffix == "png":
        odd = turned[:33] + PNG_CHUNKS["compressed text of 1.4 MB"] + turned[33:]
    else:
        odd = turned
    upright = np.rot90(canonical(encoded(suffix)), -1)
    np.testing.assert_array_equal(canonical(odd), upright)
    assert upright_photo(odd).size == (90, 60)


def damaged(data: bytes) -> Iterator[bytes]:
    for cut in (len(data) // 2, len(data) * 3 // 4):
        yield data[:cut]


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("orientation", [None, TURNED])
def test_pixels_that_are_missing_are_never_made_up(suffix: str, orientation: int | None) -> None:
    odd = chunk(b"zTXt", b"Comment\0\0" + LONG)
    for data in damaged(encoded(suffix, orientation)):
        with pytest.raises(ImageError):
            canonical(data)
        if suffix == "png":
            with pytest.raises(ImageError):
                canonical(data[:33] + odd + data[33:])


class Hostile(Image.Image):
    """A picture of Pillow's whose file turns out to be broken when it is read, as its decoders do with anything."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._size, self._mode, self.error = (64, 64), "RGB", error

    def load(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error", [SyntaxError("broken PNG file"), struct.error("unpack"), ValueError("closed"), EOFError(), KeyError(1)]
)
def test_whatever_an_opened_picture_raises_is_an_image_error(error: Exception) -> None:
    with pytest.raises(ImageError, match="truncated or corrupt"):
        canonical_picture(Hostile(error))


def test_an_opened_picture_with_a_broken_text_is_an_image_error() -> None:
    plain = encoded("png")
    data = plain[:-12] + PNG_CHUNKS["compressed text of 1.4 MB"] + plain[-12:]
    with Image.open(io.BytesIO(data)) as picture, pytest.raises(ImageError, match="truncated or corrupt"):
        canonical_picture(picture)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_ends_anywhere_is_an_image_error(format_: str) -> None:
    """Also within the very header that is looked at when Pillow has given up."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, format_, exif=b"Exif\0\0no TIFF")
    whole = buffer.getvalue()
    for end in range(1, min(len(whole), 64)):
        with pytest.raises(ImageError):
            canonical(whole[:end])
