"""The only decode: every format, mode and orientation becomes the same face; everything else says why not."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from contract.images import (
    MAX_ENCODED_BYTES,
    ImageError,
    canonical,
    canonical_file,
    canonical_picture,
    to_srgb,
    upright_photo,
)
from tests.photos import red_is_blue_profile

ORIENTATION_TAG = 0x0112


def scene(width: int, height: int) -> Image.Image:
    """Smooth, in colour, and different in every corner, so that neither a turn nor a swapped channel goes unseen."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    channels = (200 * x + 20, 220 * y + 10, 110 + 100 * np.sin(9 * x + 4 * y))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def encoded(picture: Image.Image, format_: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format_, **options)
    return stream.getvalue()


def expected(picture: Image.Image) -> np.ndarray:
    """Centre crop and Lanczos, nothing else."""
    return np.asarray(ImageOps.fit(picture.convert("RGB"), (128, 128), Image.Resampling.LANCZOS))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.int16) - b.astype(np.int16))


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its 100 bytes of data do not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


# What is accepted


@pytest.mark.parametrize(
    ("format_", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95}, 6),
        ("WEBP", {}, 16),
        ("AVIF", {"quality": 95}, 8),
        ("HEIF", {"quality": 95}, 8),
    ],
    ids=["PNG", "BMP", "WebP lossless", "JPEG", "WebP lossy", "AVIF", "HEIC"],
)
def test_each_format_gives_the_same_face(format_: str, options: dict[str, object], tolerance: int) -> None:
    face = canonical(encoded(scene(200, 150), format_, **options))
    assert face.shape == (128, 128, 3)
    assert face.dtype == np.uint8
    assert difference(face, expected(scene(200, 150))).max() <= tolerance


def test_a_canonical_face_is_not_changed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    assert np.array_equal(canonical(encoded(Image.fromarray(pixels), "PNG")), pixels)
    assert np.array_equal(canonical_picture(Image.fromarray(pixels)), pixels)


@pytest.mark.parametrize("size", [(128, 400), (400, 128), (131, 97), (16, 16), (1000, 16), (17, 4000)])
def test_any_aspect_ratio_becomes_the_centred_square(size: tuple[int, int]) -> None:
    width, height = size
    side = min(size)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    square = scene(width, height).resize((128, 128), Image.Resampling.LANCZOS, box=box)
    assert difference(canonical(encoded(scene(width, height), "PNG")), np.asarray(square)).max() <= 1


def test_a_large_jpeg_is_scaled_by_its_decoder_and_close_to_the_plain_result() -> None:
    data = encoded(scene(2400, 1800), "JPEG", quality=95)
    face = canonical(data)
    with Image.open(io.BytesIO(data)) as plain, Image.open(io.BytesIO(data)) as drafted:
        drafted.draft(None, (256, 256))
        assert drafted.size == (600, 450), "a quarter, and still more than twice the face"
        assert np.array_equal(face, expected(drafted))
        assert difference(face, expected(plain)).max() <= 3
        assert difference(face, expected(plain)).mean() < 0.5


def test_a_large_multi_picture_jpeg_of_a_camera_is_scaled_too() -> None:
    data = encoded(scene(2400, 1800), "MPO", save_all=True, append_images=[scene(160, 120)])
    with Image.open(io.BytesIO(data)) as drafted:
        assert drafted.format == "MPO"
        drafted.draft(None, (256, 256))
        assert np.array_equal(canonical(data), expected(drafted))


# Orientation

# By EXIF 2.32, where the stored picture's top left and top right corners are seen (t/b: top or bottom, l/r: side).
CORNERS = {
    1: ("tl", "tr"), 2: ("tr", "tl"), 3: ("br", "bl"), 4: ("bl", "br"),
    5: ("tl", "bl"), 6: ("tr", "br"), 7: ("br", "tr"), 8: ("bl", "tl"),
}  # fmt: skip


def corner(face: np.ndarray, name: str) -> list[int]:
    y = 16 if name[0] == "t" else 112
    x = 16 if name[1] == "l" else 112
    return face[y, x].tolist()


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_orientation_brings_corners_where_the_standard_says(format_: str, orientation: int) -> None:
    stored = Image.new("RGB", (160, 160), "black")
    stored.paste("red", (0, 0, 80, 80))
    stored.paste("blue", (80, 0, 160, 80))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    face = canonical(encoded(stored, format_, exif=exif.tobytes(), quality=95))
    top_left, top_right = CORNERS[orientation]
    assert corner(face, top_left) == pytest.approx([255, 0, 0], abs=12)
    assert corner(face, top_right) == pytest.approx([0, 0, 255], abs=12)


@pytest.mark.parametrize("orientation", CORNERS)
def test_an_oriented_oblong_is_the_upright_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    data = encoded(scene(301, 200), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as stored:
        upright = ImageOps.exif_transpose(stored)
    assert difference(canonical(data), expected(upright)).max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    assert np.array_equal(canonical(encoded(scene(150, 150), "PNG", exif=exif)), expected(scene(150, 150)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0not TIFF", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x09\0"]
)
def test_broken_exif_does_not_cost_a_whole_picture(exif: bytes) -> None:
    face = canonical(encoded(scene(150, 150), "JPEG", quality=95, exif=exif))
    assert difference(face, expected(scene(150, 150))).max() <= 6


# Modes


def test_grey_is_the_same_in_every_channel() -> None:
    grey = scene(150, 150).convert("L")
    for format_ in ("PNG", "BMP", "JPEG"):
        face = canonical(encoded(grey, format_))
        assert difference(face, expected(grey)).max() <= (0 if format_ != "JPEG" else 4)
        assert np.ptp(face, axis=2).max() == 0


def test_one_bit_pictures_are_black_and_white() -> None:
    stripes = Image.new("1", (128, 128))
    stripes.paste(1, (64, 0, 128, 128))
    face = canonical(encoded(stripes, "PNG"))
    assert face[64, 32].tolist() == [0, 0, 0]
    assert face[64, 96].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 128).astype(np.uint16)
    face = canonical(encoded(Image.fromarray(np.tile(ramp, (128, 1))), "PNG"))
    assert face[0, 0].tolist() == [0, 0, 0]
    assert face[0, 127].tolist() == [255, 255, 255]
    assert difference(face[0, :, 0], ramp // 257).max() == 0


def test_palette_pictures_have_their_colours() -> None:
    picture = scene(150, 150).quantize(32)
    for format_ in ("PNG", "BMP"):
        assert np.array_equal(canonical(encoded(picture, format_)), expected(picture))


def test_transparency_is_put_on_white() -> None:
    picture = Image.new("RGBA", (160, 160), (200, 0, 0, 255))
    picture.paste((0, 0, 200, 0), (0, 0, 160, 80))  # its colour must not show
    picture.paste((0, 0, 0, 51), (0, 80, 80, 160))  # a fifth of black
    for format_, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        face = canonical(encoded(picture, format_, **options))
        assert face[20, 64].tolist() == [255, 255, 255]
        assert face[100, 32].tolist() == pytest.approx([204, 204, 204], abs=1)
        assert face[100, 96].tolist() == [200, 0, 0]


def test_hidden_colours_do_not_bleed_into_the_edge() -> None:
    picture = Image.new("RGBA", (400, 400), (255, 255, 255, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 201, 400))
    assert canonical(encoded(picture, "PNG")).min() == 255


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    opaque = scene(200, 150)
    opaque.putalpha(255)
    assert np.array_equal(canonical(encoded(opaque, "PNG")), expected(scene(200, 150)))


def test_grey_and_palette_transparency_are_put_on_white() -> None:
    grey = Image.merge("LA", (Image.new("L", (140, 140), 10), Image.new("L", (140, 140), 0)))
    palette = Image.new("P", (140, 140), 3)
    palette.putpalette([0, 0, 0] * 8)
    for data in (encoded(grey, "PNG"), encoded(palette, "PNG", transparency=3)):
        assert canonical(data).min() == 255


def test_cmyk_is_brought_to_rgb() -> None:
    ink = Image.merge("CMYK", [Image.new("L", (140, 140), level) for level in (0, 255, 255, 0)])
    assert canonical(encoded(ink, "JPEG", quality=95))[64, 64].tolist() == pytest.approx([255, 0, 0], abs=12)


# Colour profiles


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_colours_are_brought_to_srgb_by_the_profile(format_: str) -> None:
    red = Image.new("RGB", (140, 140), "red")
    data = encoded(red, format_, icc_profile=red_is_blue_profile())
    assert canonical(data)[64, 64].tolist() == pytest.approx([0, 0, 255], abs=4)
    photo = upright_photo(data)
    assert photo.getpixel((64, 64)) == pytest.approx((255, 0, 0), abs=4)
    assert to_srgb(photo).getpixel((64, 64)) == pytest.approx((0, 0, 255), abs=4)


def test_a_transparent_picture_keeps_its_profile() -> None:
    red = Image.new("RGBA", (140, 140), (255, 0, 0, 0))
    red.paste((255, 0, 0, 255), (0, 70, 140, 140))
    face = canonical(encoded(red, "PNG", icc_profile=red_is_blue_profile()))
    assert face[10, 64].tolist() == pytest.approx([255, 255, 255], abs=2)
    assert face[120, 64].tolist() == pytest.approx([0, 0, 255], abs=2)


@pytest.mark.parametrize("profile", [b"no profile", red_is_blue_profile()[:200], bytes(5000)])
def test_a_broken_profile_does_not_cost_a_whole_picture(profile: bytes) -> None:
    face = canonical(encoded(scene(150, 150), "PNG", icc_profile=profile))
    assert np.array_equal(face, expected(scene(150, 150)))


def test_a_profile_of_other_pixels_than_the_pictures_is_not_heeded() -> None:
    grey, inks = scene(150, 150).convert("L"), scene(150, 150).convert("CMYK")
    profile = red_is_blue_profile()  # of RGB
    assert np.array_equal(
        canonical(encoded(inks, "JPEG", icc_profile=profile, quality=95)), canonical(encoded(inks, "JPEG", quality=95))
    )
    assert np.ptp(canonical(encoded(grey, "PNG", icc_profile=profile)).astype(int), axis=2).max() <= 1


# Photos


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("format_", ["JPEG", "HEIF"])
def test_a_photo_is_whole_and_upright(format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    data = encoded(scene(302, 200), format_, exif=exif.tobytes(), quality=95)
    with Image.open(io.BytesIO(encoded(scene(302, 200), "PNG", exif=exif))) as stored:
        upright = ImageOps.exif_transpose(stored)
    photo = upright_photo(data)
    assert photo.mode == "RGB"
    assert photo.size == upright.size
    assert difference(np.asarray(photo), np.asarray(upright)).mean() < 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_a_photo_of_any_mode_is_rgb(mode: str) -> None:
    photo = upright_photo(encoded(scene(150, 100).convert("RGB").convert(mode), "PNG"))
    assert photo.mode == "RGB"
    assert photo.size == (150, 100)


def test_a_bad_photo_is_refused_as_a_bad_face_is() -> None:
    for data in (b"", b"hello", png_header(20_000, 20_000), encoded(scene(8, 8), "PNG")):
        with pytest.raises(ImageError) as of_face:
            canonical(data)
        with pytest.raises(ImageError, match=re.escape(str(of_face.value))):
            upright_photo(data)


# Animations


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (140, 140), colour) for colour in ("red", "blue")]
    for format_, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(frames[0], format_, save_all=True, append_images=frames[1:], duration=100, **options)
        with Image.open(io.BytesIO(data)) as animation:
            assert animation.n_frames == 2
        assert canonical(data)[64, 64].tolist() == [255, 0, 0]


def test_a_gif_is_not_accepted() -> None:
    frames = [Image.new("RGB", (140, 140), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="not an image: no JPEG, PNG, WEBP, BMP, AVIF, HEIF header in"):
        canonical(data)


# What is refused


def test_nothing_is_refused() -> None:
    with pytest.raises(ImageError, match=r"the image is empty \(0 bytes\); send the file's content"):
        canonical(b"")


@pytest.mark.parametrize("data", [b"\0", b"hello", b"%PDF-1.7 ...", b"<html><body>404</body></html>", bytes(5000)])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not an image: no JPEG, PNG, WEBP, BMP, AVIF, HEIF header"):
        canonical(data)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "AVIF", "HEIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(format_: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.uint8))
    data = encoded(noise, format_)
    with pytest.raises(ImageError, match=r"truncated or corrupt|not an image"):
        canonical(data[: int(share * len(data))])


def test_corrupt_data_is_refused() -> None:
    data = bytearray(encoded(scene(150, 150), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="truncated or corrupt"):
        canonical(bytes(data))


@pytest.mark.parametrize("size", [(15, 200), (200, 15), (1, 1)])
def test_too_few_pixels_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"{size[0]} x {size[1]}; a face needs at least 16 pixels a side"):
        canonical(encoded(scene(*size), "PNG"))


@pytest.mark.parametrize(
    "size", [(7072, 7072), (10_000, 10_000), (16, 3_125_001), (20_000, 20_000), (2**31 - 1, 2**31 - 1)]
)
def test_more_than_fifty_megapixels_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="more than 50,000,000 pixels; send a smaller one"):
        canonical(png_header(*size))


def test_fifty_megapixels_are_not_too_many() -> None:
    with pytest.raises(ImageError, match="truncated or corrupt"):  # so it was the data that was missed
        canonical(png_header(10_000, 5_000))


def test_a_decompression_bomb_costs_neither_time_nor_memory() -> None:
    program = (
        "import resource, sys, time, warnings; from contract.images import ImageError, canonical\n"
        "warnings.simplefilter('ignore')\n"
        "data = sys.stdin.buffer.read(); used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, start = used(), time.process_time()\n"
        "try: canonical(data)\n"
        "except ImageError: print(time.process_time() - start, (used() - before) / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=png_header(10_000, 10_000), capture_output=True, check=True
    )
    seconds, mebibytes = map(float, done.stdout.split())
    assert seconds < 0.2
    assert mebibytes < 20, "decoded it would be 286"


def test_a_file_too_long_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as sparse:
        sparse.truncate(MAX_ENCODED_BYTES + 1)
    with pytest.raises(ImageError, match=r"huge\.png: the file has more than 67,108,864 bytes"):
        canonical_file(path)
    with pytest.raises(ImageError, match="the image has 67,108,865 bytes"):
        canonical(bytes(MAX_ENCODED_BYTES + 1))


# Files, pictures, surroundings


def test_a_file_is_read_and_named_in_errors(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(encoded(scene(150, 150), "PNG"))
    (tmp_path / "bad.png").write_bytes(b"text")
    assert np.array_equal(canonical_file(tmp_path / "good.png"), expected(scene(150, 150)))
    with pytest.raises(ImageError, match=r"bad\.png: not an image"):
        canonical_file(tmp_path / "bad.png")
    with pytest.raises(FileNotFoundError):
        canonical_file(tmp_path / "missing.png")


def test_a_picture_in_memory_is_treated_as_a_file_is() -> None:
    assert np.array_equal(canonical_picture(scene(200, 150)), canonical(encoded(scene(200, 150), "PNG")))
    with pytest.raises(ImageError, match="at least 16 pixels"):
        canonical_picture(scene(8, 8))
    broken = io.BytesIO(encoded(scene(200, 150), "JPEG")[:2000])
    with Image.open(broken) as picture, pytest.raises(ImageError, match="truncated or corrupt"):
        canonical_picture(picture)


def test_decoding_in_threads_leaves_the_warning_filters_alone() -> None:
    data, before = encoded(scene(150, 150), "PNG"), list(warnings.filters)
    threads = [threading.Thread(target=lambda: [canonical(data) for _ in range(40)]) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert list(warnings.filters) == before


def test_the_program_writes_the_canonical_picture(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(scene(300, 200), "JPEG"))
    command = [sys.executable, "-m", "contract.images", tmp_path / "photo.jpg", tmp_path / "canonical.png"]
    subprocess.run(command, check=True)
    with Image.open(tmp_path / "canonical.png") as written:
        assert np.array_equal(np.asarray(written), canonical_file(tmp_path / "photo.jpg"))
