"""What goes in and what comes out: an image in any of its forms, a face's attributes as a typed result."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clients.errors import InvalidImage
from contract import images
from contract.spec import EMOTIONS, GENDERS, Predictions

ImageLike = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """The attributes of one face."""

    age: float  # years
    gender: str  # of contract.spec.GENDERS, the more probable one
    gender_probability: float  # of `gender`, hence 0.5 to 1
    emotion: str  # of contract.spec.EMOTIONS, the most probable one
    emotions: dict[str, float]  # probability of each, summing to 1

    @property
    def emotion_probability(self) -> float:
        return self.emotions[self.emotion]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self)


def faces_of(predictions: Predictions) -> list[Face]:
    """One result for each of the N faces predicted."""
    return [_face(*row) for row in zip(predictions.age, predictions.gender, predictions.emotion, strict=True)]


def _face(age: float, male: float, emotion: NDArray[np.float32]) -> Face:
    gender = int(male >= 0.5)
    return Face(
        age=float(age),
        gender=GENDERS[gender],
        gender_probability=float(male if gender else 1 - male),
        emotion=EMOTIONS[int(emotion.argmax())],
        emotions=dict(zip(EMOTIONS, emotion.tolist(), strict=True)),
    )


def canonical(image: ImageLike) -> images.Face:
    """uint8 [128, 128, 3] of a path, encoded bytes, a Pillow image or RGB uint8 [H, W, 3]. Raises InvalidImage."""
    try:
        if isinstance(image, Image.Image):
            return images.canonical_picture(image)
        if isinstance(image, np.ndarray):
            return images.canonical_picture(_picture(image))
        return images.canonical(_bytes(image))
    except images.ImageError as error:
        raise InvalidImage(str(error)) from error


def encoded(image: ImageLike) -> bytes:
    """Bytes for the server to decode: files and bytes as they are, pixels as a lossless PNG. Raises InvalidImage."""
    if not isinstance(image, Image.Image | np.ndarray):
        return _bytes(image)
    buffer = io.BytesIO()
    Image.fromarray(canonical(image)).save(buffer, "PNG")
    return buffer.getvalue()


def _bytes(image: str | PathLike[str] | bytes) -> bytes:
    if isinstance(image, str | PathLike):
        try:
            with Path(image).open("rb") as file:
                data = file.read(images.MAX_ENCODED_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise InvalidImage(getattr(error, "strerror", None) or str(error)) from error
    elif isinstance(image, bytes):
        data = image
    else:
        raise InvalidImage(f"an image is a path, bytes, a Pillow image or a uint8 array, not {type(image).__name__}")
    if not 0 < len(data) <= images.MAX_ENCODED_BYTES:
        size = "0 bytes" if not data else f"more than {images.MAX_ENCODED_BYTES:,} bytes"
        raise InvalidImage(f"the image has {size}; send the whole file of a smaller picture")
    return data


def _picture(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InvalidImage(
            f"an array image is RGB uint8 [height, width, 3] with values 0 to 255; got {array.dtype} "
            f"{list(array.shape)}. Scale floats by 255 and convert with .astype('uint8')."
        )
    return Image.fromarray(array)
