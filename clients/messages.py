"""Calls and replies, without I/O: what a call consists of, and how a reply becomes faces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.errors import ContractMismatch, InvalidImage, InvalidReply
from contract.spec import (
    BOXES,
    EMOTIONS,
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    FACES_FOUND,
    GENDERS,
    IMAGE,
    LANDMARKS,
    MODEL_NAME,
    OUTPUTS,
    PHOTO_MODEL_NAME,
    PHOTO_OUTPUTS,
    SCORES,
    Predictions,
    TensorSpec,
)

Reply = Mapping[str, Any]  # INFER: output arrays by name; everything else: the reply's fields as HTTP spells them


# Calls: one request each, in the terms of KServe's v2 protocol with Triton's extensions, which gRPC and HTTP share.


@dataclass(frozen=True)
class Operation:
    """One kind of request."""

    rpc: str  # method of inference.GRPCInferenceService; its request message is <rpc>Request
    http_method: str
    path: str  # below the server's root, with the call's fields in braces


LIVE = Operation("ServerLive", "GET", "v2/health/live")
READY = Operation("ServerReady", "GET", "v2/health/ready")
SERVER_METADATA = Operation("ServerMetadata", "GET", "v2")
MODEL_METADATA = Operation("ModelMetadata", "GET", "v2/models/{name}")
MODEL_CONFIG = Operation("ModelConfig", "GET", "v2/models/{name}/config")
STATISTICS = Operation("ModelStatistics", "GET", "v2/models/stats")
INFER = Operation("ModelInfer", "POST", "v2/models/{model_name}/infer")
REGISTER_REGION = Operation("SystemSharedMemoryRegister", "POST", "v2/systemsharedmemory/region/{name}/register")
UNREGISTER_REGION = Operation("SystemSharedMemoryUnregister", "POST", "v2/systemsharedmemory/region/{name}/unregister")
INPUTS = {MODEL_NAME: IMAGE, ENSEMBLE_NAME: ENCODED_IMAGE, PHOTO_MODEL_NAME: ENCODED_IMAGE}  # what each model takes
ALL_OUTPUTS = PHOTO_OUTPUTS  # of any model; most have a few of them


@dataclass(frozen=True)
class RegionSlice:
    """Where in a shared memory region, known to the server by name, a tensor's bytes lie."""

    name: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class Tensor:
    """An input: its contract and its value, [N, *spec.dims] where the model takes batches.

    `region` already holds the value where there is one.
    """

    spec: TensorSpec
    array: NDArray[Any]
    region: RegionSlice | None = None


@dataclass(frozen=True)
class Call:
    """One request: an operation, its fields and, for INFER, the input tensor and the model's own parameters."""

    operation: Operation
    fields: Mapping[str, str | int] = field(default_factory=dict)
    tensor: Tensor | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)


def infer_call(model: str, array: NDArray[Any], parameters: Mapping[str, float | None] | None = None) -> Call:
    """Return the request to the model for an input as `stack` has it; parameters that are None are not sent."""
    sent = {name: float(value) for name, value in (parameters or {}).items() if value is not None}
    return Call(INFER, {"model_name": model}, Tensor(INPUTS[model], array), sent)


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


def predictions_of(outputs: Reply, *, count: int, url: str) -> Predictions:
    """Return the outputs as finite predictions of `count` faces. Raises InvalidReply where they are not that."""
    try:
        predictions = Predictions.from_outputs(outputs)
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidReply(f"{url}: the reply does not hold the outputs of the contract: {error}") from error
    if len(predictions) != count:
        raise InvalidReply(f"{url}: sent {count} images, got predictions of {len(predictions)}")
    if predictions.not_finite():
        raise InvalidReply(f"{url}: the predictions are not finite; check the served model with convert.evaluate")
    return predictions


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
