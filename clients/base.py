"""What both clients do without a socket: checks, splitting, the contract, reading replies.

A piece of work that needs the server is a *flow*, a generator that yields calls, receives replies and returns the
result. The synchronous and the asynchronous client differ only in how they carry a yielded call to the server.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from clients.connection import Connection
from clients.errors import ContractMismatch, InvalidInput, InvalidReply
from clients.protocol import INFER, MODEL_METADATA, Call, Reply, Tensor
from contract.spec import IMAGE, MAX_BATCH_SIZE, MODEL_NAME, OUTPUTS, Images, Predictions, TensorSpec, check_images

T = TypeVar("T")
Flow = Generator[Call, Reply, T]

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_IN_FLIGHT = 16


class BaseClient:
    """State and logic common to `FaceAttributesClient` and `AsyncFaceAttributesClient`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._connection = Connection.to(url, timeout_s=timeout_s, headers=headers, **options)
        self._checked: set[str] = set()  # models whose contract was compared on this connection

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._connection.url}>"

    def _infer_flow(self, images: Images) -> Flow[Predictions]:
        """Predictions of 1 to MAX_BATCH_SIZE images."""
        yield from self._check_contract_flow(MODEL_NAME, IMAGE)
        outputs = yield Call(INFER, {"model_name": MODEL_NAME}, Tensor(IMAGE, images))
        return _predictions(outputs, len(images), self._connection.url)

    def _check_contract_flow(self, model: str, tensor: TensorSpec) -> Flow[None]:
        if model in self._checked:
            return
        metadata = yield Call(MODEL_METADATA, {"name": model})
        check_contract(metadata, model, tensor, self._connection.url)
        self._checked.add(model)


def batches_of(images: Images) -> Iterator[Images]:
    """Views of at most MAX_BATCH_SIZE images. Raises InvalidInput for no image or anything but canonical ones."""
    try:
        check_images(images)
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    if not len(images):
        raise InvalidInput("got no image; send at least one")
    return (images[start : start + MAX_BATCH_SIZE] for start in range(0, len(images), MAX_BATCH_SIZE))


def check_contract(metadata: Reply, model: str, tensor: TensorSpec, url: str) -> None:
    """Compare a model's metadata with `contract.spec`. Raises ContractMismatch naming both sides."""
    expected = _describe([tensor], OUTPUTS)
    found = _describe(_specs(metadata.get("inputs", ())), _specs(metadata.get("outputs", ())))
    if found != expected:
        raise ContractMismatch(
            f"{url} serves model {model!r} as {found}; this client expects {expected}. "
            "Serve a model exported by this version of the project, or use the client of the server's version."
        )


def _specs(tensors: list[dict[str, Any]]) -> list[TensorSpec]:
    """As the contract has them: the leading dimension of metadata shapes is the batch."""
    return [TensorSpec(t["name"], t["datatype"], tuple(int(n) for n in t["shape"][1:])) for t in tensors]


def _describe(inputs: list[TensorSpec], outputs: tuple[TensorSpec, ...] | list[TensorSpec]) -> str:
    """Readable and comparable; the order of tensors carries no meaning, so they are sorted."""
    return " -> ".join(", ".join(sorted(map(str, side))) or "nothing" for side in (inputs, outputs))


def _predictions(outputs: Reply, count: int, url: str) -> Predictions:
    try:
        predictions = Predictions.from_outputs(outputs)
    except (KeyError, ValueError) as error:
        raise InvalidReply(f"{url}: the reply does not hold the outputs of the contract: {error}") from error
    if len(predictions) != count:
        raise InvalidReply(f"{url}: sent {count} images, got predictions of {len(predictions)}")
    if not all(np.isfinite(a).all() for a in (predictions.age, predictions.gender, predictions.emotion)):
        raise InvalidReply(f"{url}: predictions are not finite; check the model with python -m convert.evaluate")
    return predictions
