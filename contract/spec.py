"""The authority on names, types, dims and label orders; every other place is generated from it or tested against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # [N, 128, 128, 3], RGB
Float32 = NDArray[np.float32]

MODEL_NAME = "agegendernet"  # canonical images in, attributes out
DECODE_MODEL_NAME = "decode_image"  # encoded images in, canonical images out
ENSEMBLE_NAME = "face_attributes"  # encoded images in, attributes out
PHOTO_MODEL_NAME = "photo_attributes"  # an encoded photo in, its faces and their attributes out
HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002  # Triton's own defaults, and this project's
CPU_ENGINE = "openvino"  # the package that computes on the CPU server
MAX_BATCH_SIZE = 64  # the engine's profile, every config.pbtxt and the clients' splitting follow it
MAX_FACES = MAX_BATCH_SIZE  # of a photo: all of them in one batch

IMAGE_SIDE_PX = 128
GENDERS = ("female", "male")  # index = label: `gender` is the probability of GENDERS[1]
EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
AGE_GROUPS = ("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")

TRY_AGAIN_LATER = "try again later"  # what the server says, among other words, to whom it refuses because it is busy

_NUMPY_DTYPES = {"UINT8": np.uint8, "INT32": np.int32, "FP32": np.float32, "BYTES": np.object_}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor on the wire: its name, Triton data type, and dims (shape without the batch)."""

    name: str
    dtype: str  # as Triton writes it: UINT8, INT32, FP32, BYTES
    dims: tuple[int, ...]  # -1: any number

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(_NUMPY_DTYPES[self.dtype])

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.dims)}"


IMAGE = TensorSpec("image", "UINT8", (IMAGE_SIDE_PX, IMAGE_SIDE_PX, 3))
ENCODED_IMAGE = TensorSpec("encoded_image", "BYTES", (1,))
AGE = TensorSpec("age", "FP32", (1,))
GENDER = TensorSpec("gender", "FP32", (1,))
EMOTION = TensorSpec("emotion", "FP32", (len(EMOTIONS),))
OUTPUTS = (AGE, GENDER, EMOTION)

# A photo is no batch: one request is one photo, and each output but the first has a row for each of its N faces, the
# largest first. Places are in pixels of the upright photo: x to the right, y down, from the first pixel's outer corner.
FACES_FOUND = TensorSpec("faces_found", "INT32", (1,))  # more than N where the photo has more than MAX_FACES
BOXES = TensorSpec("boxes", "FP32", (-1, 4))  # left, top, right, bottom; may reach beyond the photo
SCORES = TensorSpec("scores", "FP32", (-1,))  # the detector's certainty, 0 to 1
LANDMARKS = TensorSpec("landmarks", "FP32", (-1, 5, 2))  # right eye, left eye, nose, right and left corner of the mouth
PHOTO_OUTPUTS = (FACES_FOUND, BOXES, SCORES, LANDMARKS, *(replace(t, dims=(-1, *t.dims)) for t in OUTPUTS))
# Parameters of a request to PHOTO_MODEL_NAME; its config.pbtxt holds the defaults.
MIN_SCORE = "min_score"
MIN_FACE_PX = "min_face_px"  # of the shorter side of a face's box


@dataclass(frozen=True)
class Predictions:
    """What a model says of N faces: age [N] in years, gender [N] and emotion [N, 8] as probabilities, all float32."""

    age: Float32
    gender: Float32
    emotion: Float32

    def __post_init__(self) -> None:
        expected = ((len(self.age),), (len(self.age),), (len(self.age), len(EMOTIONS)))
        found = (self.age.shape, self.gender.shape, self.emotion.shape)
        if found != expected:
            raise ValueError(f"predictions of age, gender, emotion need shapes {expected}, got {found}")

    def __len__(self) -> int:
        return len(self.age)

    def not_finite(self) -> int:
        """Count the faces that have a NaN or an infinity in any output."""
        finite = np.isfinite(self.age) & np.isfinite(self.gender) & np.isfinite(self.emotion).all(1)
        return int((~finite).sum())

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, NDArray[Any]]) -> Predictions:
        """Take the model's output tensors by name, each with its batch dimension."""
        age, gender, emotion = (np.asarray(outputs[t.name], np.float32).reshape(-1, *t.dims) for t in OUTPUTS)
        return cls(age.squeeze(1), gender.squeeze(1), emotion)

    @classmethod
    def concatenate(cls, parts: Iterable[Predictions]) -> Predictions:
        """Join predictions in order; at least one part is needed."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
        ages, genders, emotions = zip(*((p.age, p.gender, p.emotion) for p in parts), strict=True)
        return cls(np.concatenate(ages), np.concatenate(genders), np.concatenate(emotions))


def check_images(images: NDArray[Any]) -> Images:
    """Return the array itself, typed. Raises ValueError, which says what a canonical batch is, for any other."""
    if images.dtype != IMAGE.numpy_dtype or images.ndim != 4 or images.shape[1:] != IMAGE.dims:
        raise ValueError(
            f"model {MODEL_NAME!r} expects images uint8 [N, {', '.join(map(str, IMAGE.dims))}]; "
            f"got {images.dtype} {list(images.shape)}. Pass each picture through contract.images.canonical()."
        )
    return images


def age_group_index(age: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Index into AGE_GROUPS of ages in years: half-open decades, the last one open-ended."""
    return np.minimum(age.astype(np.int64) // 10, len(AGE_GROUPS) - 1)
