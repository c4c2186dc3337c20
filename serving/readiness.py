"""Is a server ready to answer? Ready means that every model has given real numbers, not merely that it was loaded."""

from __future__ import annotations

import io
import urllib.request
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from contract.spec import (
    DECODE_MODEL_NAME,
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    FACES_FOUND,
    IMAGE,
    MODEL_NAME,
    OUTPUTS,
    PHOTO_MODEL_NAME,
    TensorSpec,
)
from serving.errors import StartError

_MODELS: dict[str, tuple[TensorSpec, tuple[TensorSpec, ...]]] = {
    MODEL_NAME: (IMAGE, OUTPUTS),
    DECODE_MODEL_NAME: (ENCODED_IMAGE, (IMAGE,)),
    ENSEMBLE_NAME: (ENCODED_IMAGE, OUTPUTS),
    PHOTO_MODEL_NAME: (ENCODED_IMAGE, (FACES_FOUND,)),  # the example has no face, so the other outputs have no row
}
_WITHOUT_BATCH = {PHOTO_MODEL_NAME}

# Both would send what is meant for this machine to the proxy that http_proxy names.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_OPTIONS = [("grpc.enable_http_proxy", 0)]


def is_ready(http_url: str) -> bool:
    """Return whether the server says that all its models are loaded; False also where nothing listens yet."""
    # Not through gRPC: after a refused connection its channels wait a second before they try again.
    try:
        with _DIRECT.open(f"{http_url}/v2/health/ready", timeout=1.0) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:  # refused, timed out, or not ready (an HTTPError)
        return False


def warm_up(grpc_url: str, *, timeout_s: float = 60.0) -> list[str]:
    """Infer once with every loaded model of the contract and check its answer; the models' names.

    Raises StartError for a model that fails or whose answer is empty, misshapen or not finite.
    """
    with grpc.InferenceServerClient(grpc_url.removeprefix("grpc://"), channel_args=_OPTIONS) as client:
        loaded = [name for name in _MODELS if client.is_model_ready(name)]
        for name in loaded:
            _infer_once(client, name, timeout_s)
    return loaded


def _infer_once(client: Any, name: str, timeout_s: float) -> None:
    taken, given = _MODELS[name]
    batch = () if name in _WITHOUT_BATCH else (1,)
    value = _example(taken).reshape(*batch, *taken.dims)
    request = grpc.InferInput(taken.name, list(value.shape), taken.dtype)
    request.set_data_from_numpy(value)
    try:
        result = client.infer(name, [request], client_timeout=timeout_s)
    except InferenceServerException as error:
        raise StartError(f"model {name!r} does not answer: {error}") from error
    for tensor in given:
        _check_answer(name, replace(tensor, dims=(*batch, *tensor.dims)), _values(result, tensor.name))


def _values(result: Any, name: str) -> NDArray[Any] | None:
    try:
        values: NDArray[Any] | None = result.as_numpy(name)
        return values
    except ValueError:  # the answer has a shape, but no bytes to fill it
        return None


def _check_answer(name: str, tensor: TensorSpec, answer: NDArray[Any] | None) -> None:
    if answer is None or not answer.size:
        raise StartError(
            f"model {name!r} answers {tensor.name!r} with no data: its environment has NumPy 2, which this server's "
            "Python backend cannot read; install it again with make setup"
        )
    if answer.shape != tensor.dims or not np.isfinite(answer).all():
        raise StartError(f"model {name!r} answers {tensor.name!r} with {answer!r}, expected finite {tensor}")


def _example(tensor: TensorSpec) -> NDArray[Any]:
    image = np.random.default_rng(0).integers(0, 256, IMAGE.dims, dtype=np.uint8)
    if tensor is IMAGE:
        return image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return np.array([buffer.getvalue()], dtype=object)
