"""Whatever the bytes, canonical() gives a face or raises ImageError."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contract.images import ImageError, canonical, upright_photo

# As in a server: there a decoder's warning is a line in the log, not the exception that pytest makes of it.
pytestmark = pytest.mark.filterwarnings("ignore")


def encoded(mode: str, format_: str, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 4)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(noise).convert("RGB").convert(mode).save(stream, format_, exif=exif.tobytes(), **options)
    return stream.getvalue()


VALID = (
    encoded("RGB", "JPEG"),
    encoded("L", "JPEG", progressive=True),
    encoded("CMYK", "JPEG"),
    encoded("RGB", "PNG"),
    encoded("P", "PNG", transparency=0),
    encoded("I;16", "PNG"),
    encoded("RGBA", "PNG", save_all=True, append_images=[Image.new("RGBA", (20, 24))]),
    encoded("RGB", "WEBP"),
    encoded("RGBA", "WEBP", save_all=True, append_images=[Image.new("RGBA", (20, 24))]),
    encoded("RGB", "BMP"),
    encoded("P", "BMP"),
    encoded("RGB", "AVIF"),
    encoded("RGB", "HEIF"),
    encoded("RGB", "MPO", save_all=True, append_images=[Image.new("RGB", (20, 24))]),
)
SIGNATURES = (
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x20\0\0\0WEBPVP8X",
    b"BM",
    b"\0\0\0\x1cftypavif",
    b"\0\0\0\x1cftypheic",
)


def check(data: bytes) -> None:
    try:
        face = canonical(data)
        photo = upright_photo(data)
    except ImageError:
        return
    assert face.shape == (128, 128, 3)
    assert face.dtype == np.uint8
    assert photo.mode == "RGB"


@pytest.mark.parametrize("data", VALID)
def test_what_the_fuzz_starts_from_is_accepted(data: bytes) -> None:
    assert canonical(data).shape == (128, 128, 3)


@settings(max_examples=300, deadline=None)
@given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=400))
def test_arbitrary_bytes(signature: bytes, rest: bytes) -> None:
    check(signature + rest)


@settings(max_examples=1000, deadline=None)
@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    kept=st.floats(0.1, 1),
    tail=st.binary(max_size=20),
)
def test_damaged_images(data: bytes, changes: list[tuple[float, int]], kept: float, tail: bytes) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    check(bytes(damaged[: int(kept * len(damaged))]) + tail)


@settings(max_examples=500, deadline=None)
@given(data=st.sampled_from(VALID), place=st.integers(0, 60), value=st.integers(0, 2**32 - 1))
def test_hostile_headers(data: bytes, place: int, value: int) -> None:
    """Sizes, offsets and lengths stand in the first bytes: set four of them to anything, in both byte orders."""
    for order in ("little", "big"):
        check(data[:place] + value.to_bytes(4, order) + data[place + 4 :])
