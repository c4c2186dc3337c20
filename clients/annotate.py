"""A picture with what was found in it written on it."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from clients.faces import Face
from contract.files import replacing

SIDE_PX = 384  # smaller pictures are enlarged to this, so that the text is readable
MAX_SIDE_PX = 1024


def annotate(image: Path | bytes, face: Face, target: Path) -> None:
    """Write the picture, upright and with a band of text at its foot, to `target`."""
    with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    scale = min(MAX_SIDE_PX / max(picture.size), max(1.0, SIDE_PX / min(picture.size)))
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    with replacing(target) as temporary:
        _with_band(picture, face).save(temporary)


def _with_band(picture: Image.Image, face: Face) -> Image.Image:
    lines = (
        f"{face.age:.0f} years",
        f"{face.gender} {face.gender_probability:.0%}",
        f"{face.emotion} {face.emotion_probability:.0%}",
    )
    text = "   ".join(lines)
    draw = ImageDraw.Draw(picture, "RGBA")
    size_px = picture.width / 18
    font = ImageFont.load_default(size_px)
    size_px *= min(1.0, 0.94 * picture.width / draw.textlength(text, font))
    font = ImageFont.load_default(size_px)
    top = picture.height - 2 * size_px
    draw.rectangle((0, top, picture.width, picture.height), fill=(0, 0, 0, 160))
    draw.text((picture.width / 2, top + size_px), text, "white", font, anchor="mm")
    return picture
