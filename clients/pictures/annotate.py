"""A picture with what was found in it written on it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clients.errors import InvalidImage
from clients.messages import FaceAttributes, encoded_bytes
from contract.files import replacing
from contract.images import ImageError, upright_photo

SIDE_PX = 384  # smaller pictures are enlarged to this, so that the text is readable
MAX_SIDE_PX = 1024


def annotate(image: Path | bytes, face: FaceAttributes, target: Path) -> None:
    """Write the picture, decoded as the model's is, with the result in a band at its foot, to `target`.

    Raises InvalidImage where it cannot be decoded (any more), OSError where it cannot be written.
    """
    try:
        picture = upright_photo(encoded_bytes(image))
    except ImageError as error:
        raise InvalidImage(str(error)) from error
    scale = min(MAX_SIDE_PX / max(picture.size), max(1.0, SIDE_PX / min(picture.size)))
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    with replacing(target) as temporary:
        _drawn(picture, face).save(temporary)


def _drawn(picture: Image.Image, face: FaceAttributes) -> Image.Image:
    """Outline the square that the model was shown, write the result at the foot."""
    width, height = picture.size
    gender, emotion = f"{face.gender} {face.gender_probability:.0%}", f"{face.emotion} {face.emotion_probability:.0%}"
    text = f"age {face.age:.0f}   {gender}   {emotion}"
    draw = ImageDraw.Draw(picture, "RGBA")
    if width != height:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline="white", width=2)
    text_px = min(width / 18, height / 14)
    text_px *= min(1.0, 0.94 * width / draw.textlength(text, ImageFont.load_default(text_px)))
    draw.rectangle((0, height - 2 * text_px, width, height), fill=(0, 0, 0, 160))
    draw.text((width / 2, height - text_px), text, "white", ImageFont.load_default(text_px), anchor="mm")
    return picture
