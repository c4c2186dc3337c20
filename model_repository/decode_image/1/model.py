"""Encoded images -> canonical face images, for the server's Python backend: the decode is contract.images."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from contract.images import ImageError, canonical
from contract.spec import ENCODED_IMAGE, IMAGE, Images


class TritonPythonModel:
    """Decodes each request in a thread of its own, so that a huge or bad picture concerns only its sender."""

    def initialize(self, args: dict[str, str]) -> None:
        self._threads = ThreadPoolExecutor(
            len(os.sched_getaffinity(0))
        )  # Pillow decodes without the interpreter's lock
        self._max_waiting = int(json.loads(args["model_config"])["parameters"]["max_waiting_requests"]["string_value"])
        self._waiting: set[Future[None]] = set()

    def execute(self, requests: list[Any]) -> None:
        """Hand the requests over and return before they are decoded, so that the next are taken meanwhile."""
        self._waiting = {future for future in self._waiting if not future.done()}
        for request in requests:
            sender = request.get_response_sender()
            if len(self._waiting) >= self._max_waiting:
                response = _refusal("too many images are waiting; try again later", pb_utils.TritonError.UNAVAILABLE)
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                continue
            encoded = pb_utils.get_input_tensor_by_name(request, ENCODED_IMAGE.name).as_numpy()  # [N, 1] bytes
            self._waiting.add(self._threads.submit(_answer, sender, encoded.ravel().tolist()))

    def finalize(self) -> None:
        self._threads.shutdown()


def _answer(sender: Any, encoded: list[bytes]) -> None:
    try:
        response = pb_utils.InferenceResponse([pb_utils.Tensor(IMAGE.name, _decode(encoded))])
    except ImageError as error:
        response = _refusal(str(error), pb_utils.TritonError.INVALID_ARG)
    except Exception as error:  # whatever it is, the client must hear of it: it would wait for ever
        response = _refusal(f"decoding failed: {error!r}", pb_utils.TritonError.INTERNAL)
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _decode(encoded: list[bytes]) -> Images:
    faces = np.empty((len(encoded), *IMAGE.dims), IMAGE.numpy_dtype)
    for position, data in enumerate(encoded):
        try:
            faces[position] = canonical(data)
        except ImageError as error:
            raise ImageError(f"image {position} of the request: {error}") from error
    return faces


def _refusal(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
