"""Photos of drawn faces, each of whose places is known."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from training.data.synthetic import synthesize

BACKGROUND = (96, 118, 84)


@lru_cache(maxsize=256)
def drawn_face(index: int) -> Image.Image:
    """A synthetic face as FFHQ frames one, 128 x 128; the box that a detector gives it is about 0.6 x 0.7 of that."""
    return synthesize(5, index)[0]


def photo_with_faces(size: tuple[int, int], squares: list[tuple[int, int, int]]) -> Image.Image:
    """A plain photo with a face in FFHQ's frame at each (left, top, side); it may reach beyond the border."""
    photo = Image.new("RGB", size, BACKGROUND)
    for index, (left, top, side) in enumerate(squares):
        face = drawn_face(index).resize((side, side), Image.Resampling.LANCZOS)
        photo.paste(face, (left, top))
    return photo


def grid(size: tuple[int, int], count: int, side: int) -> list[tuple[int, int, int]]:
    """So many squares side by side."""
    columns = math.ceil(math.sqrt(count * size[0] / size[1])) if count else 1
    rows = math.ceil(count / columns)
    assert columns * side <= size[0]
    assert rows * side <= size[1]
    step_x, step_y = size[0] // columns, size[1] // max(rows, 1)
    return [(n % columns * step_x, n // columns * step_y, side) for n in range(count)]


def centres(boxes: np.ndarray) -> np.ndarray:
    """Middles of boxes [N, 4], as [N, 2]."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def encoded(picture: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format_, **options)
    return stream.getvalue()


def red_is_blue_profile() -> bytes:
    """sRGB's ICC profile with the primaries of red and blue exchanged: heeded, it turns one into the other."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"####").replace(b"bXYZ", b"rXYZ").replace(b"####", b"bXYZ")
