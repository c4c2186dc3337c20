"""AgeGenderNet on the CPU, for the server's Python backend: OpenVINO on the model.onnx beside this file.

A lone image is computed by all cores together, which answers it soonest. Several are shared out to streams of one
core each, a few at a time, which computes the most a second. Both are compiled from the same file.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as pb_utils

from contract.spec import IMAGE, OUTPUTS, Images


class TritonPythonModel:
    """Takes requests as they come and answers each when its last image is computed, whatever else is in flight."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = {name: p["string_value"] for name, p in json.loads(args["model_config"])["parameters"].items()}
        self._max_waiting = int(parameters["max_waiting_images"])
        self._images_per_turn = int(parameters["images_per_turn"])
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        alone, streams = _compile(path, precision=parameters["inference_precision"], streams=int(parameters["streams"]))
        self._all_cores = alone.create_infer_request()
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()  # None ends a thread
        self._uncomputed = 0  # images handed over
        self._crowded = False  # whether the last turn had several images: a request is then not alone, only ahead
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._take_turns, args=(streams.create_infer_request(),))
            for _ in range(streams.get_property("NUM_STREAMS") + 1)  # while one answers, the others keep them all busy
        ]
        for thread in self._threads:
            thread.start()

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answer a lone image at once; hand others over and return, so that the next requests are taken meanwhile."""
        if len(requests) == 1 and self._uncomputed == 0 and not self._crowded:
            images = _images(requests[0])
            if len(images) == 1:
                return [_compute_alone(self._all_cores, images)]
        for request in requests:
            self._hand_over(_Answer(request))
        return None  # the answers' own threads send them

    def finalize(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _hand_over(self, answer: _Answer) -> None:
        if self._waiting.qsize() >= self._max_waiting:
            answer.fail("too many images are waiting; try again later", pb_utils.TritonError.UNAVAILABLE)
            return
        with self._lock:
            self._uncomputed += len(answer.images)
        for position in range(len(answer.images)):
            self._waiting.put((answer, position))

    def _take_turns(self, one_core: openvino.InferRequest) -> None:
        while (first := self._waiting.get()) is not None:
            self._take_turn(one_core, [first, *self._take_more()])

    def _take_turn(self, one_core: openvino.InferRequest, items: list[_Item]) -> None:
        """Compute the images of several requests and answer each request that this completes."""
        try:
            try:
                outputs = _infer(one_core, np.stack([answer.images[position] for answer, position in items]))
            finally:  # before any answer: the request that follows it may be a lone one
                with self._lock:
                    self._uncomputed -= len(items)
                    self._crowded = len(items) > 1
            for row, (answer, position) in enumerate(items):
                answer.put(position, {name: values[row] for name, values in outputs.items()})
        except Exception as error:  # whatever it is, the clients must hear of it: they would wait for ever
            for answer, _ in items:
                answer.fail(f"OpenVINO failed: {error}", pb_utils.TritonError.INTERNAL)

    def _take_more(self) -> Iterator[_Item]:
        """What fits into the turn of the images that wait already."""
        for _ in range(self._images_per_turn - 1):
            try:
                item = self._waiting.get_nowait()
            except Empty:
                return
            if item is None:  # meant for a thread
                self._waiting.put(None)
                return
            yield item


def _compile(path: Path, *, precision: str, streams: int) -> tuple[openvino.CompiledModel, openvino.CompiledModel]:
    """The network for one request on all cores, and for one in each of many streams (0: as many as OpenVINO thinks)."""
    core = openvino.Core()
    network = core.read_model(path)
    settings = {"INFERENCE_NUM_THREADS": available_cores(), "INFERENCE_PRECISION_HINT": precision}
    several = {"PERFORMANCE_HINT": "THROUGHPUT", **({"NUM_STREAMS": streams} if streams else {})}
    return (
        core.compile_model(network, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"}),
        core.compile_model(network, "CPU", {**settings, **several}),
    )


def _images(request: Any) -> Images:
    """[N, 128, 128, 3], valid until execute() returns."""
    images: Images = pb_utils.get_input_tensor_by_name(request, IMAGE.name).as_numpy()
    return images


def _compute_alone(infer_request: openvino.InferRequest, images: Images) -> Any:
    """The response to one image. Returned by execute() it goes straight back, which a sender in a thread does not."""
    try:
        return _response(_infer(infer_request, images))
    except Exception as error:  # whatever it is, the client must hear of it
        return _refusal(f"OpenVINO failed: {error}", pb_utils.TritonError.INTERNAL)


def _infer(infer_request: openvino.InferRequest, images: Images) -> dict[str, Any]:
    """Outputs by name, valid until the request's next inference."""
    infer_request.infer({IMAGE.name: images}, share_inputs=True)
    return {t.name: infer_request.get_tensor(t.name).data for t in OUTPUTS}


class _Answer:
    """One request: its images, and the outputs computed so far by any thread; the last one sends the response."""

    def __init__(self, request: Any) -> None:
        self.images = _images(request).copy()  # outlives execute()
        self._sender = request.get_response_sender()
        self._outputs = {t.name: np.empty((len(self.images), *t.dims), t.numpy_dtype) for t in OUTPUTS}
        self._missing = len(self.images)
        self._lock = threading.Lock()

    def put(self, position: int, outputs: dict[str, Any]) -> None:
        """Store the outputs of one image."""
        for name, values in outputs.items():
            self._outputs[name][position] = values
        with self._lock:
            self._missing -= 1
            complete = self._missing == 0
        if complete:
            self._send(_response(self._outputs))

    def fail(self, message: str, code: int) -> None:
        """Answer with an error, once."""
        with self._lock:
            first, self._missing = self._missing > 0, -1
        if first:
            self._send(_refusal(message, code))

    def _send(self, response: Any) -> None:
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


_Item = tuple[_Answer, int]  # an image that waits: its request and its position in it


def _response(outputs: dict[str, Any]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in outputs.items()])


def _refusal(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, and the quota of its control groups, rounded up."""
    cores = len(os.sched_getaffinity(0))
    for quota, period in _cpu_limits():
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def _cpu_limits() -> list[list[str]]:
    """`cpu.max` (quota and period in microseconds) of the process's control group and all above it (cgroup v2)."""
    root = Path("/sys/fs/cgroup")
    try:
        group = root / Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        return []
    folders = [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return [limit.read_text().split() for folder in folders if (limit := folder / "cpu.max").is_file()]
