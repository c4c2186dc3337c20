"""Encoded bytes or a file -> canonical face image or upright photo: the project's only decode.

python -m contract.images photo.jpg canonical.png
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from contract import program
from contract.metadata import without_metadata
from contract.program import UserError
from contract.spec import IMAGE_SIDE_PX

register_heif_opener()
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "AVIF", "HEIF")  # HEIF: what iPhones write as .heic
MAX_PIXELS = 50_000_000  # a 50-megapixel camera still fits; decoded it is 150 MB
MAX_ENCODED_BYTES = 64 * 1024 * 1024  # a longer file is refused unread
MIN_SIDE_PX = 16  # fewer pixels hold no face, and 1 x 65535 is an attack rather than a picture

CanonicalImage = NDArray[np.uint8]  # [128, 128, 3], RGB
_Decoded = TypeVar("_Decoded")


class ImageError(UserError, ValueError):
    """The input is no picture that can be used; the message names the cause and the remedy."""


class UnfitImageError(ImageError):
    """The picture is sound, but larger or smaller than what is accepted."""


def canonical(data: bytes) -> CanonicalImage:
    """Decode JPEG, PNG, WebP, BMP, AVIF or HEIC bytes to the canonical image, uint8 [128, 128, 3] RGB.

    The largest centred square is resized (Lanczos, as FFHQ's thumbnails were made), EXIF orientation applied, alpha
    put on white, colours brought to sRGB by the ICC profile; of an animation the first frame counts. Metadata that
    cannot be read is left out of account. Raises ImageError for anything but a whole, sane picture.
    """
    return _decode(data, _to_canonical)


def upright_photo(data: bytes) -> Image.Image:
    """Decode the same formats to the whole photo, mode RGB, turned as EXIF says, alpha put on white.

    Colours are left in the profile of the photo, which stays in `info`: `to_srgb` is for the small pictures cut out of
    it. Raises ImageError as `canonical` does.
    """
    return _decode(data, _to_upright)


def _decode(data: bytes, convert: Callable[[Image.Image], _Decoded]) -> _Decoded:
    if not data:
        raise ImageError("the image is empty (0 bytes); send the file's content")
    if len(data) > MAX_ENCODED_BYTES:
        raise ImageError(f"the image has {len(data):,} bytes, more than {MAX_ENCODED_BYTES:,}; send a smaller file")
    try:
        return _open(data, convert)
    except ImageError as error:
        if isinstance(error, UnfitImageError) or isinstance(error.__cause__, OSError):
            raise  # pixels, and so as broken in what follows; decoding them again would only take as long again
        for pixels in without_metadata(data):
            with suppress(ImageError):
                return _open(pixels, convert)
        raise


def _open(data: bytes, convert: Callable[[Image.Image], _Decoded]) -> _Decoded:
    with _errors_of_decoders(f"{len(data):,} bytes"), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        _check_header(picture)
        return convert(picture)


@contextmanager
def _errors_of_decoders(what: str) -> Iterator[None]:
    """Raise ImageError for whatever a decoder raises."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image: no {', '.join(FORMATS)} header in {what}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # an exception under -W error
        raise UnfitImageError(f"the image has more than {MAX_PIXELS:,} pixels; send a smaller one") from None
    except Exception as error:  # decoders of hostile bytes raise OSError, SyntaxError, struct.error, IndexError, ...
        raise ImageError(f"the image is truncated or corrupt: {error}") from error


def canonical_file(path: Path) -> CanonicalImage:
    """Return `canonical` of a file's content. Raises ImageError naming the file; OSError where it cannot be read."""
    try:
        if path.stat().st_size > MAX_ENCODED_BYTES:
            raise ImageError(f"the file has more than {MAX_ENCODED_BYTES:,} bytes; send a smaller one")
        return canonical(path.read_bytes())
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def canonical_picture(picture: Image.Image) -> CanonicalImage:
    """Return `canonical` of a picture that Pillow has opened or that was made in memory. Raises ImageError."""
    return _converted(picture, _to_canonical)


def upright_picture(picture: Image.Image) -> Image.Image:
    """Return `upright_photo` of a picture that Pillow has opened or that was made in memory. Raises ImageError."""
    return _converted(picture, _to_upright)


def _converted(picture: Image.Image, convert: Callable[[Image.Image], _Decoded]) -> _Decoded:
    with _errors_of_decoders("the opened picture"):
        _check_header(picture)
        return convert(picture)


def _to_canonical(picture: Image.Image) -> CanonicalImage:
    # A JPEG's decoder itself scales by 1/2, 1/4 or 1/8; twice the target keeps the final resize antialiased.
    picture.draft(None, (2 * IMAGE_SIDE_PX, 2 * IMAGE_SIDE_PX))
    orientation = _orientation(picture)
    square = ImageOps.fit(_to_eight_bits(picture), (IMAGE_SIDE_PX, IMAGE_SIDE_PX), Image.Resampling.LANCZOS)
    # A centred square turns and mirrors in place, so orientation comes last, on 128 x 128 pixels.
    return np.asarray(to_srgb(_turned(_on_white(square), orientation)), np.uint8)


def _to_upright(picture: Image.Image) -> Image.Image:
    orientation = _orientation(picture)
    return _turned(_on_white(_to_eight_bits(picture)), orientation)


def to_srgb(rgb: Image.Image) -> Image.Image:
    """Bring a picture of mode RGB from the ICC profile in its `info` to sRGB; without a usable one, leave it."""
    if (transform := _transform_to_srgb(rgb.info.get("icc_profile"), "RGB")) is None:
        return rgb
    return transform.apply(rgb)


_SRGB = ImageCms.createProfile("sRGB")


@lru_cache(maxsize=16)  # cameras have few profiles; making a transform costs as much as applying it to a small picture
def _transform_to_srgb(icc_profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not icc_profile:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        return ImageCms.buildTransform(profile, _SRGB, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):  # broken, or of another colour space than the pixels
        return None


def _orientation(picture: Image.Image) -> Any:
    """The EXIF orientation; 1, upright, where there is none that can be read."""
    picture.load()  # first, as a PNG's EXIF may follow the pixels, whose errors count
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # parsers of hostile bytes raise anything; see without_metadata
        return 1
    return orientation if isinstance(orientation, int) else 1


_ORIENTATION = 0x0112
_TRANSPOSITIONS = {  # EXIF 2.32, tag Orientation: what brings the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _check_header(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise UnfitImageError(f"the image is {width} x {height}, more than {MAX_PIXELS:,} pixels; send a smaller one")
    if min(width, height) < MIN_SIDE_PX:
        raise UnfitImageError(f"the image is {width} x {height}; a face needs at least {MIN_SIDE_PX} pixels a side")


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    transposition = _TRANSPOSITIONS.get(orientation)
    return picture if transposition is None else picture.transpose(transposition)


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """RGB, or RGBA where something is transparent."""
    if picture.mode.startswith("I"):  # 16-bit grey: convert() would clip to 255 instead of scaling
        grey: NDArray[Any] = np.asarray(picture)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "CMYK":  # its profile is of inks, so it cannot wait until the picture is small
        picture.load()
        transform = _transform_to_srgb(picture.info.get("icc_profile"), "CMYK")
        rgb = picture.convert("RGB") if transform is None else transform.apply(picture)
        rgb.info.pop("icc_profile", None)  # it was of the inks, or else of nothing here
        return rgb
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    rgb = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    rgb.info = picture.info  # which holds the colour profile
    return rgb


if __name__ == "__main__":
    program.run(lambda: Image.fromarray(canonical_file(Path(sys.argv[1]))).save(sys.argv[2]))
