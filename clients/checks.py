"""What is checked before anything is sent and before anything is handed out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from clients.errors import ContractMismatch, InvalidInput, InvalidReply
from clients.protocol import Reply
from contract.spec import MAX_BATCH_SIZE, OUTPUTS, Images, Predictions, TensorSpec, check_images


def batches_of(images: Images) -> Iterator[Images]:
    """Views of at most MAX_BATCH_SIZE images. Raises InvalidInput for no image or anything but canonical ones."""
    try:
        check_images(np.asarray(images))
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    if not len(images):
        raise InvalidInput("got no image; send at least one")
    return (images[start : start + MAX_BATCH_SIZE] for start in range(0, len(images), MAX_BATCH_SIZE))


def check_contract(metadata: Reply, model: str, tensor: TensorSpec, *, url: str) -> None:
    """Compare a model's metadata with `contract.spec`. Raises ContractMismatch naming both sides."""
    expected = _describe([tensor], OUTPUTS)
    try:
        found = _describe(_specs(metadata["inputs"]), _specs(metadata["outputs"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidReply(f"{url}: the metadata of model {model!r} cannot be read: {error}") from error
    if found != expected:
        raise ContractMismatch(
            f"{url} serves model {model!r} as {found}; this client expects {expected}. "
            "Serve a model exported by this version of the project, or use the client of the server's version."
        )


def predictions_of(outputs: Reply, *, count: int, url: str) -> Predictions:
    """The outputs as predictions of `count` faces. Raises InvalidReply."""
    try:
        predictions = Predictions.from_outputs(outputs)
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidReply(f"{url}: the reply does not hold the outputs of the contract: {error}") from error
    if len(predictions) != count:
        raise InvalidReply(f"{url}: sent {count} images, got predictions of {len(predictions)}")
    if not all(np.isfinite(array).all() for array in (predictions.age, predictions.gender, predictions.emotion)):
        raise InvalidReply(f"{url}: the predictions are not finite; check the served model with convert.evaluate")
    return predictions


def _specs(tensors: Iterable[dict[str, Any]]) -> list[TensorSpec]:
    """As the contract has them: the leading dimension of metadata shapes is the batch."""
    return [TensorSpec(t["name"], t["datatype"], tuple(int(n) for n in t["shape"][1:])) for t in tensors]


def _describe(inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> str:
    """Readable and comparable; the order of tensors carries no meaning, so they are sorted."""
    return " -> ".join(", ".join(sorted(map(str, side))) or "nothing" for side in (inputs, outputs))
