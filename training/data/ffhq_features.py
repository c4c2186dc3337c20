"""One FFHQ-Features annotation (Azure Face's JSON) -> labels, or the reason why it has none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.program import UserError
from contract.spec import EMOTIONS, GENDERS
from training.data.faces import MAX_AGE_YEARS


@dataclass(frozen=True)
class FaceLabels:
    """Of the picture's subject: age in years, gender (1 = male), emotion confidences divided by their sum."""

    age: float
    gender: float
    emotion: tuple[float, ...]


class AnnotationError(UserError, ValueError):
    """An annotation gives no labels: `reason` is what is counted, `detail` what was found instead."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_annotation(file: Path) -> FaceLabels:
    """The labels of the first face in the file. Raises AnnotationError."""
    try:
        faces = json.loads(file.read_bytes())
    except OSError as error:
        raise AnnotationError("unreadable annotation", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError("broken JSON", str(error)) from error
    if not isinstance(faces, list):
        raise AnnotationError("broken JSON", "not a list of faces")
    if not faces:
        raise AnnotationError("no face annotated", "an empty list")
    # Where there are two, the first is the picture's subject.
    attributes = _field(faces[0], "faceAttributes")
    emotion = _field(attributes, "emotion")
    confidences = [_number(emotion, name, maximum=1) for name in EMOTIONS]
    if not (total := sum(confidences)):
        raise AnnotationError("value out of range", "the emotions sum to 0")
    return FaceLabels(
        age=_number(attributes, "age", maximum=MAX_AGE_YEARS),
        gender=_gender(attributes),
        emotion=tuple(confidence / total for confidence in confidences),
    )


def try_annotations(files: Sequence[Path]) -> list[FaceLabels | AnnotationError]:
    """`read_annotation` of each, errors returned rather than raised: a task for another process."""
    return [_try_annotation(file) for file in files]


def _try_annotation(file: Path) -> FaceLabels | AnnotationError:
    try:
        return read_annotation(file)
    except AnnotationError as error:
        return error


def _field(parent: Any, name: str) -> Any:
    if not isinstance(parent, dict) or name not in parent:
        raise AnnotationError("missing field", name)
    return parent[name]


def _number(parent: Any, name: str, *, maximum: float) -> float:
    value = _field(parent, name)
    # bool is a kind of int in Python, but not an age; NaN fails the comparison.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= maximum:
        raise AnnotationError("value out of range", f"{name} is {value!r:.40}")
    return float(value)


def _gender(attributes: Any) -> float:
    value = _field(attributes, "gender")
    if value not in GENDERS:
        raise AnnotationError("value out of range", f"gender is {value!r:.40}")
    return float(GENDERS.index(value))
