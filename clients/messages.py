"""What goes to the server and what comes back, without I/O: images become arrays, replies become faces."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clients.calls import INPUTS, Reply
from clients.errors import ContractMismatch, InvalidImage, InvalidReply
from contract import images as contract_images
from contract.images import CanonicalImage
from contract.spec import (
    EMOTIONS,
    ENCODED_IMAGE,
    GENDERS,
    OUTPUTS,
    Predictions,
    TensorSpec,
)

ImageLike = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


# From images to arrays


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
    buffer = io.BytesIO()
    Image.fromarray(_canonical(image)).save(buffer, "PNG")
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


# From replies to faces


@dataclass(frozen=True)
class FaceAttributes:
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
        """Return plain types, ready for JSON."""
        return asdict(self)


Result = FaceAttributes | InvalidImage  # of one image


def check_contract(metadata: Reply, model: str, *, url: str) -> None:
    """Compare a model's metadata with `contract.spec`. Raises ContractMismatch naming both sides."""
    expected = _describe([INPUTS[model]], OUTPUTS)
    try:
        found = _describe(_specs(metadata["inputs"]), _specs(metadata["outputs"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidReply(f"{url}: the metadata of model {model!r} cannot be read: {error}") from error
    if found != expected:
        raise ContractMismatch(
            f"{url} serves model {model!r} as {found}; this client expects {expected}. "
            "Serve a model exported by this version of the project, or use the client of the server's version."
        )


def _specs(tensors: Iterable[dict[str, Any]]) -> list[TensorSpec]:
    """As the contract has them: the leading dimension of metadata shapes is the batch."""
    return [TensorSpec(t["name"], t["datatype"], tuple(int(n) for n in t["shape"][1:])) for t in tensors]


def _describe(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> str:
    """Readable and comparable; the order of tensors carries no meaning, so they are sorted."""
    return " -> ".join(", ".join(sorted(map(str, side))) or "nothing" for side in (inputs, outputs))


# What no network of ours says of a face, one in training neither, in the order of OUTPUTS: a reply beyond is broken.
_LOWEST = np.array([-1000, *[-0.01] * (1 + len(EMOTIONS))], np.float32)
_HIGHEST = np.array([1000, *[1.01] * (1 + len(EMOTIONS))], np.float32)


def predictions_of(outputs: Reply, *, count: int, url: str) -> Predictions:
    """Return the outputs as finite predictions of `count` faces. Raises InvalidReply where they are not that."""
    try:
        arrays = [np.asarray(outputs[t.name], np.float32) for t in OUTPUTS]
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidReply(f"{url}: the reply does not hold the outputs of the contract: {error}") from error
    for array, tensor in zip(arrays, OUTPUTS, strict=True):
        if array.shape != (count, *tensor.dims):
            if array.shape[1:] == tensor.dims:
                raise InvalidReply(f"{url}: sent {count} images, got predictions of {len(array)}")
            raise InvalidReply(f"{url}: the outputs of the contract are other than {tensor.name} {list(array.shape)}")
    rows = np.concatenate(arrays, 1)  # [count, 10]
    if not ((rows >= _LOWEST) & (rows <= _HIGHEST)).all():  # NaN is neither
        fault = "not possible" if np.isfinite(rows).all() else "not finite"
        raise InvalidReply(f"{url}: the predictions are {fault}; check the served model with convert.evaluate")
    return Predictions(rows[:, 0], rows[:, 1], rows[:, 2:])


def faces_of(predictions: Predictions) -> list[FaceAttributes]:
    """Return the attributes of each of the N faces predicted."""
    return [_face(*row) for row in zip(predictions.age, predictions.gender, predictions.emotion, strict=True)]


def _face(age: float, male: float, emotion: NDArray[np.float32]) -> FaceAttributes:
    gender = int(male >= 0.5)
    return FaceAttributes(
        age=float(age),
        gender=GENDERS[gender],
        gender_probability=float(male if gender else 1 - male),
        emotion=EMOTIONS[int(emotion.argmax())],
        emotions=dict(zip(EMOTIONS, emotion.tolist(), strict=True)),
    )


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
        if isinstance(result, InvalidImage) and isinstance(image, str | PathLike):
            result = InvalidImage(f"{fspath(image)}: {result}")
        results.append(result)
    return results
