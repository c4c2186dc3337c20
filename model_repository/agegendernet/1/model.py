"""AgeGenderNet on the CPU, for the server's Python backend: OpenVINO on the model.onnx beside this file.

A lone image is computed by all cores together, which answers it soonest. Several are shared out to streams of one
core each, a few at a time, which computes the most a second. Both are compiled from the same file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as pb_utils

from contract.spec import IMAGE, OUTPUTS

# Images that a stream computes at a time: against one by one this saves 12 % of the processor time at network
# resolution 128 and 4 % at 224 (float32, AVX-512); 8 would save as little again and answer later.
MAX_TURN = 4


class TritonPythonModel:
    """Takes requests as they come and answers each when its last image is computed, whatever else is in flight."""

    def initialize(self, args: dict[str, str]) -> None:
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        parameters = {name: p["string_value"] for name, p in json.loads(args["model_config"])["parameters"].items()}
        settings = {
            "INFERENCE_NUM_THREADS": available_cores(),
            "INFERENCE_PRECISION_HINT": parameters["inference_precision"],
        }
        core = openvino.Core()
        network = core.read_model(path)
        alone = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "LATENCY", **settings})
        streams = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", **settings})
        self._all_cores = alone.create_infer_request()
        self._one_core = threading.local()
        self._threads = ThreadPoolExecutor(
            streams.get_property("NUM_STREAMS") + 1,  # while one answers, the others keep the streams busy
            initializer=lambda: setattr(self._one_core, "request", streams.create_infer_request()),
        )
        self._max_waiting = int(parameters["max_waiting_images"])
        self._turns: set[Future[None]] = set()
        self._waiting: deque[tuple[_Answer, int]] = deque()  # an image each

    def execute(self, requests: list[Any]) -> None:
        """Hand the images over and return before they are computed, so that the next requests are taken meanwhile."""
        self._turns = {turn for turn in self._turns if not turn.done()}
        for request in requests:
            answer = _Answer(request)
            if len(self._waiting) >= self._max_waiting:
                answer.fail("too many images are waiting; try again later", pb_utils.TritonError.UNAVAILABLE)
                continue
            compute = self._with_all_cores if len(answer.images) == 1 and not self._turns else self._with_one_core
            for position in range(len(answer.images)):
                self._waiting.append((answer, position))
                self._turns.add(self._threads.submit(compute))

    def finalize(self) -> None:
        self._threads.shutdown()

    def _with_all_cores(self) -> None:
        self._take_turn(self._all_cores)

    def _with_one_core(self) -> None:
        self._take_turn(self._one_core.request)

    def _take_turn(self, infer_request: openvino.InferRequest) -> None:
        """Compute up to MAX_TURN waiting images. Each image brings a turn: earlier ones may have left this none."""
        items: list[tuple[_Answer, int]] = []
        with contextlib.suppress(IndexError):
            while len(items) < MAX_TURN:
                items.append(self._waiting.popleft())
        if not items:
            return
        try:
            infer_request.infer({IMAGE.name: np.stack([answer.images[position] for answer, position in items])})
            outputs = {t.name: infer_request.get_tensor(t.name).data for t in OUTPUTS}
            for row, (answer, position) in enumerate(items):
                answer.put(position, {name: values[row] for name, values in outputs.items()})
        except Exception as error:  # whatever it is, the clients must hear of it: they would wait for ever
            for answer, _ in items:
                answer.fail(f"OpenVINO failed: {error}", pb_utils.TritonError.INTERNAL)


class _Answer:
    """One request: its images, and the outputs computed so far by any thread; the last one sends the response."""

    def __init__(self, request: Any) -> None:
        self.images = np.array(pb_utils.get_input_tensor_by_name(request, IMAGE.name).as_numpy())  # outlives execute()
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
            self._send(pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in self._outputs.items()]))

    def fail(self, message: str, code: int) -> None:
        """Answer with an error, once."""
        with self._lock:
            first, self._missing = self._missing > 0, -1
        if first:
            self._send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code)))

    def _send(self, response: Any) -> None:
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


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
