"""A server's state as the clients report it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.calls import INFER, INPUTS, LIVE, READY, SERVER_METADATA, STATISTICS, Call, Reply, infer_call
from clients.errors import AccessDenied, FaceAttributesError, ModelNotFound, ServerBusy
from clients.inputs import prepare_photo
from clients.messages import detected_faces_of, predictions_of
from contract.spec import ENCODED_IMAGE, IMAGE, MODEL_NAME, PHOTO_MODEL_NAME

_CALLS = (LIVE, READY, SERVER_METADATA, STATISTICS)  # their replies share no field
_OPTIONAL = (SERVER_METADATA, STATISTICS)  # a server may restrict them
Outcome = Reply | FaceAttributesError  # of one call


def health_calls(deadline: float) -> list[Call]:
    """Return what to ask for `Health.of`: a model's process may be dead while the server says that it is ready."""
    questions = [Call(operation, deadline=deadline) for operation in _CALLS]
    return questions + [infer_call(model, _grey(model), deadline=deadline) for model in INPUTS]


@cache
def _grey(model: str) -> NDArray[Any]:
    """One image as the model takes it."""
    grey = np.full(IMAGE.dims, 128, np.uint8)
    if INPUTS[model] == IMAGE:
        return grey[None]
    photo = prepare_photo(grey)
    return photo if model == PHOTO_MODEL_NAME else photo.reshape(1, *ENCODED_IMAGE.dims)


@dataclass(frozen=True)
class ModelStatistics:
    """What one version of a model has done since it was loaded; times are means."""

    name: str
    version: str
    images: int
    requests: int  # that succeeded
    failures: int
    average_batch: float  # images per execution: what dynamic batching achieves
    queue_ms: float  # per request
    compute_ms: float  # per request: input, inference and output


@dataclass(frozen=True)
class Health:
    """A server's state; what it restricts is empty."""

    live: bool
    ready: bool
    faults: tuple[str, ...]  # why models do not answer; empty when all that are served do
    server: str
    version: str
    models: tuple[ModelStatistics, ...]

    @classmethod
    def of(cls, calls: Sequence[Call], outcomes: Sequence[Outcome], *, url: str) -> Health:
        """Read how `health_calls` ended. Raises what a call ended with that had to succeed."""
        fields: dict[str, Any] = {}
        faults = []
        for call, outcome in zip(calls, outcomes, strict=True):
            if call.operation is INFER:
                faults += _faults(str(call.fields["model_name"]), outcome, url=url)
            elif not isinstance(outcome, FaceAttributesError):
                fields |= outcome
            elif not (call.operation in _OPTIONAL and isinstance(outcome, AccessDenied)):
                raise outcome
        return cls(
            live=fields["live"],
            ready=fields["ready"],
            faults=tuple(faults),
            server=fields.get("name", ""),
            version=fields.get("version", ""),
            models=statistics_of(fields),
        )

    @property
    def well(self) -> bool:
        """Whether the server is live and ready, and its models answer."""
        return self.live and self.ready and not self.faults

    def to_text(self) -> str:
        """Return a line on the server, one on each fault and one on each model."""
        states = {"live": self.live, "ready": self.ready, "answering": not self.faults}
        words = ", ".join(state if so else f"not {state}" for state, so in states.items())
        lines = [f"{self.server or 'server'} {self.version}".rstrip() + f": {words}", *self.faults]
        if not self.models:
            return "\n".join(lines)
        header = ("model", "images", "requests", "failures", "average batch", "queue ms", "compute ms")
        lines.append("{:<20} {:>9} {:>9} {:>9} {:>14} {:>9} {:>11}".format(*header))
        lines += [
            f"{f'{m.name}/{m.version}':<20} {m.images:>9,} {m.requests:>9,} {m.failures:>9,} {m.average_batch:>14.2f} "
            f"{m.queue_ms:>9.2f} {m.compute_ms:>11.2f}"
            for m in self.models
        ]
        return "\n".join(lines)


def statistics_of(reply: Reply) -> tuple[ModelStatistics, ...]:
    """Read the reply to STATISTICS."""
    return tuple(map(_statistics, reply.get("model_stats", ())))


def _faults(model: str, outcome: Outcome, *, url: str) -> list[str]:
    """Why a model does not answer; a busy one does, and all but MODEL_NAME may be left out of a repository."""
    if isinstance(outcome, ServerBusy) or (isinstance(outcome, ModelNotFound) and model != MODEL_NAME):
        return []
    if isinstance(outcome, AccessDenied):
        raise outcome
    try:
        if isinstance(outcome, FaceAttributesError):
            raise outcome
        if model == PHOTO_MODEL_NAME:
            detected_faces_of(outcome, url=url)
        else:
            predictions_of(outcome, count=1, url=url)
    except FaceAttributesError as error:
        return [f"{model}: {error}"]
    return []


def _statistics(fields: dict[str, Any]) -> ModelStatistics:
    durations = fields["inference_stats"]
    requests, images = int(durations["success"]["count"]), int(fields["inference_count"])
    return ModelStatistics(
        name=fields["name"],
        version=fields["version"],
        images=images,
        requests=requests,
        failures=int(durations["fail"]["count"]),
        average_batch=images / max(int(fields["execution_count"]), 1),
        queue_ms=_mean_ms(durations, requests, "queue"),
        compute_ms=_mean_ms(durations, requests, "compute_input", "compute_infer", "compute_output"),
    )


def _mean_ms(durations: dict[str, Any], requests: int, *parts: str) -> float:
    return sum(int(durations[part]["ns"]) for part in parts) / 1e6 / max(requests, 1)
