"""Is a server ready to answer? Ready means that every model has given real numbers, not merely that it was loaded.

Needs nothing that Triton's image lacks, as it runs there too.
"""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.spec import (
    DECODE_MODEL_NAME,
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    FACES_FOUND,
    IMAGE,
    MODEL_NAME,
    OUTPUTS,
    PHOTO_MODEL_NAME,
    TRY_AGAIN_LATER,
    TensorSpec,
)
from serving.errors import BusyError, NoAnswerError, StartError

_MODELS: dict[str, tuple[TensorSpec, tuple[TensorSpec, ...]]] = {
    MODEL_NAME: (IMAGE, OUTPUTS),
    DECODE_MODEL_NAME: (ENCODED_IMAGE, (IMAGE,)),
    ENSEMBLE_NAME: (ENCODED_IMAGE, OUTPUTS),
    PHOTO_MODEL_NAME: (ENCODED_IMAGE, (FACES_FOUND,)),  # the example has no face, so the other outputs have no row
}
_WITHOUT_BATCH = {PHOTO_MODEL_NAME}
_JSON_BYTES = "Inference-Header-Content-Length"  # in a body, the bytes of JSON before those of tensors
_BUSY = (TRY_AGAIN_LATER, "exceeds maximum queue size")  # in the words of our models, and of Triton's own batcher

# Else what is meant for this machine would go to the proxy that http_proxy names.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_ready(http_url: str) -> bool:
    """Return whether the server says that all its models are loaded; False also where nothing listens yet."""
    return _says_ready(f"{http_url}/v2/health/ready")


def check_models(http_url: str, headers: Mapping[str, str], *, timeout_s: float = 60.0) -> None:
    """Infer once with every loaded model of the contract and check its answer.

    Raises StartError for a model that fails or whose answer is empty, misshapen or not finite; its subclasses say that
    it did not answer in time, or is busy.
    """
    for name in _MODELS:
        if _says_ready(f"{http_url}/v2/models/{name}/ready"):
            _infer_once(http_url, name, headers, timeout_s)


def answers_given(http_url: str, headers: Mapping[str, str]) -> int:
    """Count the requests that models have answered. Raises OSError where the server does not tell."""
    request = urllib.request.Request(f"{http_url}/v2/models/stats", headers=dict(headers))
    with _DIRECT.open(request, timeout=5.0) as answer:
        return sum(model["inference_stats"]["success"]["count"] for model in json.load(answer)["model_stats"])


def _says_ready(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=5.0) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except HTTPError as not_ready:
        not_ready.close()
    except OSError:  # refused or timed out
        pass
    return False


def _infer_once(http_url: str, name: str, headers: Mapping[str, str], timeout_s: float) -> None:
    taken, given = _MODELS[name]
    batch = [] if name in _WITHOUT_BATCH else [1]
    body, json_bytes = _request(taken, batch)
    url = f"{http_url}/v2/models/{name}/infer"
    request = urllib.request.Request(url, body, {**headers, _JSON_BYTES: str(json_bytes)})
    try:
        with _DIRECT.open(request, timeout=timeout_s) as answer:
            content = answer.read()
            described_bytes = int(answer.headers.get(_JSON_BYTES, len(content)))  # left out where no tensor has a byte
    except HTTPError as error:
        with error:
            message = error.read(1000).decode(errors="replace")
        kind = BusyError if any(words in message.lower() for words in _BUSY) else StartError
        raise kind(f"model {name!r} does not answer: {message}") from error
    except TimeoutError as error:
        raise NoAnswerError(f"model {name!r} does not answer within {timeout_s:.0f} s") from error
    except OSError as error:
        raise StartError(f"model {name!r} does not answer: {error}") from error
    answers = _answers(content, described_bytes)
    for tensor in given:
        _check_answer(name, replace(tensor, dims=(*batch, *tensor.dims)), *answers.get(tensor.name, ([], b"")))


def _answers(content: bytes, described_bytes: int) -> dict[str, tuple[list[int], bytes]]:
    """Shape and data of each tensor in a body, by its name."""
    answers, data = {}, content[described_bytes:]
    for output in json.loads(content[:described_bytes])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        answers[output["name"]] = output["shape"], data[:size]
        data = data[size:]
    return answers


def _request(tensor: TensorSpec, batch: list[int]) -> tuple[bytes, int]:
    """A body of one example, after Triton's extension for binary tensors, and the size of its JSON."""
    data = _example(tensor)
    sizes = {"binary_data_size": len(data)}
    described = {"name": tensor.name, "datatype": tensor.dtype, "shape": [*batch, *tensor.dims], "parameters": sizes}
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    return head + data, len(head)


def _check_answer(name: str, tensor: TensorSpec, shape: list[int], data: bytes) -> None:
    if not data:
        raise StartError(
            f"model {name!r} answers {tensor.name!r} with no data: its environment has NumPy 2, which this server's "
            "Python backend cannot read; install it again with make setup"
        )
    answer: NDArray[Any] = np.frombuffer(data, tensor.numpy_dtype)
    if shape != list(tensor.dims) or answer.size != np.prod(shape) or not np.isfinite(answer).all():
        raise StartError(f"model {name!r} answers {tensor.name!r} with {shape} {answer!r}, expected finite {tensor}")


def _example(tensor: TensorSpec) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, IMAGE.dims, dtype=np.uint8)
    if tensor is IMAGE:
        return image.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    encoded = buffer.getvalue()
    return len(encoded).to_bytes(4, "little") + encoded
