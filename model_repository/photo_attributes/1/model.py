"""A photo -> its faces and their attributes, for the server's Python backend.

Photos are decoded and searched by as many threads as there are cores. What waits, for them or for agegendernet, waits
in an event loop: execute() hands a photo over and returns, so that no photo holds up another.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from yunet import Faces, YuNet

from contract.alignment import align
from contract.images import ImageError, upright_photo
from contract.spec import (
    BOXES,
    ENCODED_IMAGE,
    FACES_FOUND,
    IMAGE,
    LANDMARKS,
    MAX_FACES,
    MIN_FACE_PX,
    MIN_SCORE,
    MODEL_NAME,
    OUTPUTS,
    SCORES,
    Images,
)

DETECTOR = "face_detection_yunet_2023mar.onnx"
LOWEST_MIN_SCORE = 0.3  # below it half of a picture is a candidate


class RefusedError(Exception):
    """A request that is answered with an error, and which."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class TritonPythonModel:
    """Answers each photo when its faces are computed, whatever else is in flight."""

    def initialize(self, args: dict[str, str]) -> None:
        self._parameters = {
            name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        self._max_waiting = int(self._parameters["max_waiting_photos"])
        self._max_waiting_bytes = int(self._parameters["max_waiting_mb"]) * 1_000_000
        cores = len(os.sched_getaffinity(0))
        self._detector = YuNet(
            Path(args["model_repository"], args["model_version"], DETECTOR),
            search_sides_px=tuple(map(int, self._parameters["search_sides_px"].split())),
            cores=cores,
        )
        self._searching = ThreadPoolExecutor(cores)  # decoders, resizes and OpenVINO let go of the interpreter's lock
        self._waiting: dict[asyncio.Future[None], int] = {}  # photos in flight and their bytes
        self._loop = asyncio.new_event_loop()
        # The backend's async_exec() holds a thread of this executor for as long as agegendernet computes.
        self._loop.set_default_executor(ThreadPoolExecutor(self._max_waiting))
        self._loop_thread = threading.Thread(target=self._loop.run_forever)
        self._loop_thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Hand the photos over and return before they are decoded."""
        self._waiting = {future: size for future, size in self._waiting.items() if not future.done()}
        for request in requests:
            sender = request.get_response_sender()
            data = pb_utils.get_input_tensor_by_name(request, ENCODED_IMAGE.name).as_numpy().item()
            if (
                len(self._waiting) >= self._max_waiting
                or sum(self._waiting.values()) + len(data) > self._max_waiting_bytes
            ):
                _send(
                    sender, _refusal("too many photos are waiting; try again later", pb_utils.TritonError.UNAVAILABLE)
                )
                continue
            answer = self._answer(sender, data, json.loads(request.parameters() or "{}"))
            self._waiting[asyncio.run_coroutine_threadsafe(answer, self._loop)] = len(data)

    def finalize(self) -> None:
        for future in self._waiting:
            future.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._loop_thread.join()

    async def _answer(self, sender: Any, data: bytes, asked: dict[str, Any]) -> None:
        try:
            min_score, min_face_px = self._limits(asked)
            faces, found, images = await self._loop.run_in_executor(
                self._searching, self._search, data, min_score, min_face_px
            )
            response = _response(faces, found, await _attributes(images))
        except RefusedError as error:
            response = _refusal(str(error), error.code)
        except ImageError as error:
            response = _refusal(str(error), pb_utils.TritonError.INVALID_ARG)
        except Exception as error:  # whatever it is, the client must hear of it: it would wait for ever
            response = _refusal(f"finding faces failed: {error!r}", pb_utils.TritonError.INTERNAL)
        _send(sender, response)

    def _limits(self, asked: dict[str, Any]) -> tuple[float, float]:
        """The least score and size of a face, of the request or else of the configuration."""
        values = []
        for name, lowest, highest in ((MIN_SCORE, LOWEST_MIN_SCORE, 1.0), (MIN_FACE_PX, 1.0, float("inf"))):
            given = asked.get(name, self._parameters[name])
            try:
                value = float(given)
            except (TypeError, ValueError):
                value = float("nan")
            if not lowest <= value <= highest:
                message = f"parameter {name} is {given!r}; it must be a number from {lowest:g} to {highest:g}"
                raise RefusedError(message, pb_utils.TritonError.INVALID_ARG)
            values.append(value)
        return values[0], values[1]

    def _search(self, data: bytes, min_score: float, min_face_px: float) -> tuple[Faces, int, Images]:
        """The largest faces, how many there are, and those faces' canonical images."""
        photo = upright_photo(data)
        faces = self._detector.find(photo, min_score=min_score)
        faces = faces[faces.sides_px.min(axis=1, initial=np.inf) >= min_face_px]
        largest = faces[:MAX_FACES]
        images = np.empty((len(largest), *IMAGE.dims), IMAGE.numpy_dtype)
        for image, landmarks in zip(images, largest.landmarks, strict=True):
            image[:] = align(photo, landmarks)
        return largest, len(faces), images


async def _attributes(images: Images) -> list[NDArray[np.float32]]:
    """What agegendernet says of the images, as OUTPUTS; all of them are one request to it."""
    if not len(images):
        return [np.empty((0, *tensor.dims), tensor.numpy_dtype) for tensor in OUTPUTS]
    request = pb_utils.InferenceRequest(
        model_name=MODEL_NAME,
        requested_output_names=[tensor.name for tensor in OUTPUTS],
        inputs=[pb_utils.Tensor(IMAGE.name, images)],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU),  # also from a GPU
    )
    response = await request.async_exec()
    if response.has_error():
        raise RefusedError(response.error().message(), response.error().code())
    return [pb_utils.get_output_tensor_by_name(response, tensor.name).as_numpy() for tensor in OUTPUTS]


def _response(faces: Faces, found: int, attributes: list[NDArray[np.float32]]) -> Any:
    detected = (
        (FACES_FOUND, np.array([found])),
        (BOXES, faces.boxes),
        (SCORES, faces.scores),
        (LANDMARKS, faces.landmarks),
    )
    tensors = [*detected, *zip(OUTPUTS, attributes, strict=True)]
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(t.name, np.ascontiguousarray(values, t.numpy_dtype)) for t, values in tensors]
    )


def _refusal(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _send(sender: Any, response: Any) -> None:
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
