"""What users pass becomes what is sent: paths, bytes, pictures and arrays -> inputs of the models."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clients.errors import InvalidImage, InvalidInput
from clients.messages import Result
from contract import images as contract_images
from contract.images import CanonicalImage
from contract.spec import ENCODED_IMAGE, MAX_BATCH_SIZE, Images, check_images

ImageLike = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


def prepare(images: Iterable[ImageLike], *, encode: bool) -> list[CanonicalImage | bytes | InvalidImage]:
    """Read and, unless the server is to do that (`encode`), decode images; an error stands for one that cannot be."""
    prepared: list[CanonicalImage | bytes | InvalidImage] = []
    for image in images:
        try:
            prepared.append(_encoded(image) if encode else _canonical(image))
        except InvalidImage as error:
            prepared.append(error)
    return prepared


def stack(images: Sequence[CanonicalImage | bytes]) -> NDArray[Any]:
    """Return a model's input: uint8 [N, 128, 128, 3] of canonical images, bytes objects [N, 1] of encoded ones."""
    if isinstance(images[0], bytes):
        return np.array(images, object).reshape(-1, *ENCODED_IMAGE.dims)
    return np.stack(images)


def prepare_photo(photo: ImageLike) -> NDArray[Any]:
    """Return the input of PHOTO_MODEL_NAME: files and bytes as they are, pixels as a lossless PNG.

    Raises InvalidImage, naming a photo given as a path.
    """
    try:
        if isinstance(photo, Image.Image | np.ndarray):
            picture = photo if isinstance(photo, Image.Image) else _picture(photo)
            data = _png(contract_images.upright_picture(picture))
        else:
            data = encoded_bytes(photo)
    except contract_images.ImageError as error:
        raise InvalidImage(str(error)) from error
    except InvalidImage as error:
        raise named(error, photo) from error
    return np.array([data], object)


def _canonical(image: ImageLike) -> CanonicalImage:
    try:
        if isinstance(image, Image.Image):
            return contract_images.canonical_picture(image)
        if isinstance(image, np.ndarray):
            return contract_images.canonical_picture(_picture(image))
        return contract_images.canonical(encoded_bytes(image))
    except contract_images.ImageError as error:
        raise InvalidImage(str(error)) from error


def _encoded(image: ImageLike) -> bytes:
    """Files and bytes as they are, pixels as a lossless PNG."""
    if not isinstance(image, Image.Image | np.ndarray):
        return encoded_bytes(image)
    return _png(Image.fromarray(_canonical(image)))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encoded_bytes(image: str | PathLike[str] | bytes) -> bytes:
    """Return a file's content, or the bytes given. Raises InvalidImage where there are none, or too many."""
    limit = contract_images.MAX_ENCODED_BYTES
    if isinstance(image, str | PathLike):
        try:
            with open(image, "rb", opener=_without_waiting) as file:
                data = file.read(limit + 1)
        except (OSError, ValueError, TypeError) as error:  # ValueError: a null byte in the path
            raise InvalidImage(getattr(error, "strerror", None) or str(error)) from error
    elif isinstance(image, bytes):
        data = image
    else:
        raise InvalidImage(f"an image is a path, bytes, a Pillow image or a uint8 array, not {type(image).__name__}")
    if not 0 < len(data) <= limit:
        size = "0 bytes" if not data else f"more than {limit:,} bytes"
        raise InvalidImage(f"the image has {size}; send the whole file of a smaller picture")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe, whose writer may never come, and a device, which may never end, are none."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # POSIX
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "not a file; what comes from a pipe is to be passed as bytes", path)
    return descriptor


def _picture(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InvalidImage(
            f"an array image is RGB uint8 [height, width, 3] with values 0 to 255; got {array.dtype} "
            f"{list(array.shape)}. Scale floats by 255 and convert with .astype('uint8')."
        )
    return Image.fromarray(array)


def split_batch(images: Images) -> Iterator[Images]:
    """Return views of at most MAX_BATCH_SIZE images. Raises InvalidInput for none, or for any but canonical ones."""
    try:
        check_images(np.asarray(images))
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    if not len(images):
        raise InvalidInput("got no image; send at least one")
    return (images[start : start + MAX_BATCH_SIZE] for start in range(0, len(images), MAX_BATCH_SIZE))


def results_of(
    images: Sequence[ImageLike],
    prepared: Sequence[CanonicalImage | bytes | InvalidImage],
    answers: Iterable[Result],
) -> list[Result]:
    """Return a result for each image: its own error or the next answer. Errors name images that were given as paths."""
    remaining = iter(answers)
    results: list[Result] = []
    for image, ready in zip(images, prepared, strict=True):
        result = ready if isinstance(ready, InvalidImage) else next(remaining)
        results.append(named(result, image) if isinstance(result, InvalidImage) else result)
    return results


def named(error: InvalidImage, image: ImageLike) -> InvalidImage:
    """Return the error with the image's name in front, where it was given as a path."""
    return InvalidImage(f"{fspath(image)}: {error}") if isinstance(image, str | PathLike) else error
