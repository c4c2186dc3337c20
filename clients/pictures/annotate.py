"""A picture with what was found in it written on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clients.errors import InvalidImage
from clients.inputs import encoded_bytes
from clients.messages import DetectedFace, FaceAttributes
from contract.files import replacing
from contract.images import ImageError, to_srgb, upright_photo

SIDE_PX = 384  # smaller pictures are enlarged to this, so that the text is readable
BOX_PX = 96  # so are pictures whose smallest face is smaller than this, up to the largest size
MAX_SIDE_PX = 2048

_Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def annotate(image: Path | bytes, found: FaceAttributes | Sequence[DetectedFace], target: Path) -> None:
    """Write the picture, upright, to `target` with the result on it.

    found: the faces of a photo, each of which gets a box and a label, or the attributes of the face that the picture
    is, which get a band at its foot. Raises InvalidImage where the picture cannot be decoded (any more), OSError where
    it cannot be written.
    """
    try:
        picture = to_srgb(upright_photo(encoded_bytes(image)))
    except ImageError as error:
        raise InvalidImage(str(error)) from error
    smallest = [min(_sides(face.box)) for face in found] if isinstance(found, Sequence) else []
    wanted = max(1.0, SIDE_PX / min(picture.size), BOX_PX / max(min(smallest, default=BOX_PX), 1))
    scale = min(MAX_SIDE_PX / max(picture.size), wanted)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    if isinstance(found, Sequence):
        _draw_faces(picture, found, scale)
    else:
        _draw_band(picture, found)
    with replacing(target) as temporary:
        picture.save(temporary, compress_level=1)  # noise would take seconds otherwise


def _draw_faces(picture: Image.Image, faces: Sequence[DetectedFace], scale: float) -> None:
    """Boxes first, so that no box crosses a label; each label where it covers least of faces and other labels."""
    draw = ImageDraw.Draw(picture, "RGBA")
    boxes = [_scaled(face.box, scale) for face in faces]
    line_px = max(2, round(max(picture.size) / 400))
    for left, top, right, bottom in boxes:
        # Dark around bright: one of the two stands out from any background.
        draw.rectangle((left - line_px, top - line_px, right + line_px, bottom + line_px), None, "black", line_px)
        draw.rectangle((left, top, right, bottom), None, "white", line_px)
    taken = list(boxes)
    for face, box in zip(faces, boxes, strict=True):
        text = (
            f"{face.age:.0f} {face.gender} {face.gender_probability:.0%}\n{face.emotion} {face.emotion_probability:.0%}"
        )
        font = ImageFont.load_default(min(max(_sides(box)[0] / 9, 11), max(picture.size) / 40))
        width, height = draw.multiline_textbbox((0, 0), text, font)[2:]
        size = (width + 8, height + 8)
        places = [_inside(place, picture.size) for place in _places(box, size)]
        covered = [sum(_overlap(place, other) for other in taken) for place in places]
        place = places[covered.index(min(covered))]
        taken.append(place)
        draw.rectangle(place, fill=(0, 0, 0, 190))
        draw.multiline_text((place[0] + 4, place[1] + 2), text, "white", font)


def _places(box: _Rectangle, size: tuple[float, float]) -> Iterator[_Rectangle]:
    """Above, below, right and left of a box, the best first."""
    left, top, right, bottom = box
    width, height = size
    for x, y in ((left, top - height - 3), (left, bottom + 3), (right + 3, top), (left - width - 3, top)):
        yield (x, y, x + width, y + height)


def _inside(place: _Rectangle, size: tuple[int, int]) -> _Rectangle:
    """The rectangle moved until the picture holds it."""
    left, top, right, bottom = place
    x = min(0.0, size[0] - right) if right > size[0] else max(0.0, -left)
    y = min(0.0, size[1] - bottom) if bottom > size[1] else max(0.0, -top)
    return (left + x, top + y, right + x, bottom + y)


def _overlap(one: _Rectangle, other: _Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _scaled(box: _Rectangle, scale: float) -> _Rectangle:
    left, top, right, bottom = box
    return (scale * left, scale * top, scale * right, scale * bottom)


def _sides(box: _Rectangle) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _draw_band(picture: Image.Image, face: FaceAttributes) -> None:
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
