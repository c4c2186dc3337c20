"""What comes back from the server, without I/O: replies become faces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.calls import INPUTS, Reply
from clients.errors import ContractMismatch, InvalidImage, InvalidReply
from contract.spec import (
    BOXES,
    EMOTIONS,
    FACES_FOUND,
    GENDERS,
    LANDMARKS,
    OUTPUTS,
    PHOTO_MODEL_NAME,
    PHOTO_OUTPUTS,
    SCORES,
    Predictions,
    TensorSpec,
)


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


@dataclass(frozen=True)
class DetectedFace(FaceAttributes):
    """One face of a photo; places are in pixels of the photo, turned upright."""

    box: tuple[float, float, float, float]  # left, top, right, bottom; may reach beyond the photo
    score: float  # the detector's certainty, 0 to 1
    landmarks: tuple[tuple[float, float], ...]  # right eye, left eye, nose, right and left corner of the mouth


class DetectedFaces(list[DetectedFace]):
    """The faces of a photo, largest first; `in_photo` is more than their number where there are more than MAX_FACES."""

    def __init__(self, faces: Iterable[DetectedFace], *, in_photo: int) -> None:
        super().__init__(faces)
        self.in_photo = in_photo


Result = FaceAttributes | InvalidImage  # of one image
PhotoResult = DetectedFaces | InvalidImage  # of one photo


def check_contract(metadata: Reply, model: str, *, url: str) -> None:
    """Compare a model's metadata with `contract.spec`. Raises ContractMismatch naming both sides."""
    is_photo = model == PHOTO_MODEL_NAME
    expected = _describe([INPUTS[model]], PHOTO_OUTPUTS if is_photo else OUTPUTS)
    batch_dims = 0 if is_photo else 1
    try:
        found = _describe(*(_specs(metadata[side], batch_dims=batch_dims) for side in ("inputs", "outputs")))
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidReply(f"{url}: the metadata of model {model!r} cannot be read: {error}") from error
    if found != expected:
        raise ContractMismatch(
            f"{url} serves model {model!r} as {found}; this client expects {expected}. "
            "Serve a model exported by this version of the project, or use the client of the server's version."
        )


def _specs(tensors: Iterable[dict[str, Any]], *, batch_dims: int) -> list[TensorSpec]:
    """As the contract has them, without the batch."""
    return [TensorSpec(t["name"], t["datatype"], tuple(int(n) for n in t["shape"][batch_dims:])) for t in tensors]


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


def detected_faces_of(outputs: Reply, *, url: str) -> DetectedFaces:
    """Return the faces of one photo. Raises InvalidReply where the outputs are not the contract's."""
    try:
        detected = [np.asarray(outputs[t.name], np.float64) for t in _DETECTED]
        in_photo = int(outputs[FACES_FOUND.name].item())
        count = len(outputs[SCORES.name])
        boxes, scores, landmarks = (a.reshape(count, *t.dims[1:]) for a, t in zip(detected, _DETECTED, strict=True))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidReply(f"{url}: the reply does not hold the outputs of the contract: {error}") from error
    faces = faces_of(predictions_of(outputs, count=count, url=url))
    rows = zip(faces, boxes.tolist(), scores.tolist(), landmarks.tolist(), strict=True)
    return DetectedFaces(
        (
            DetectedFace(**vars(face), box=tuple(box), score=score, landmarks=tuple(map(tuple, points)))
            for face, box, score, points in rows
        ),
        in_photo=in_photo,
    )


_DETECTED = (BOXES, SCORES, LANDMARKS)
