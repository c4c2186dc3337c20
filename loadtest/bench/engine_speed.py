"""What the engine does on these cores without a server: OpenVINO's own benchmark_app, and a loop in one process.

python -m loadtest.bench.engine_speed --model model_repository/agegendernet/1/model.onnx --seconds 3
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import tyro

from contract.program import UserError
from contract.spec import IMAGE

PROJECT = Path(__file__).resolve().parents[2]
ONE_IMAGE = (1, *IMAGE.dims)


class EngineError(UserError, RuntimeError):
    """The engine could not be measured; the message has its own last words."""


@dataclass(frozen=True)
class EngineSpeed:
    """Of a model on its own, one image at a time."""

    throughput: float  # images/s with every stream busy
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class EngineConfig:
    """Measure one image at a time in latency mode, then all streams in throughput mode; print both as JSON."""

    model: Path
    seconds: float = 3.0  # for each of the two
    precision: str = "f32"  # OpenVINO's inference precision, as configs/cpu.pbtxt has it


def benchmark_app(model: Path, *, seconds: float, precision: str = "f32") -> float:
    """Measure images/s of OpenVINO's own program: throughput hint, batch 1, uint8 input. Raises EngineError."""
    shape = ",".join(map(str, ONE_IMAGE))
    program = Path(sys.executable).with_name("benchmark_app")
    options = (
        f"-hint throughput -infer_precision {precision} -ip u8 -shape {IMAGE.name}[{shape}] -t {max(1, round(seconds))}"
    )
    done = subprocess.run([program, "-m", model, *options.split()], capture_output=True, text=True, check=False)
    found = re.search(r"Throughput: +([\d.]+) FPS", done.stdout)
    if done.returncode != 0 or found is None:
        raise EngineError(f"benchmark_app: {_last_line(done)}")
    return float(found[1])


def in_process(model: Path, *, seconds: float, precision: str = "f32") -> EngineSpeed:
    """Measure OpenVINO from Python in a process of its own: one at a time, then all streams. Raises EngineError."""
    command = [sys.executable, "-m", "loadtest.bench.engine_speed", "--model", str(model.absolute())]
    options = ["--seconds", str(seconds), "--precision", precision]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=PROJECT)
    if done.returncode != 0:
        raise EngineError(f"OpenVINO on {model}: {_last_line(done)}")
    return EngineSpeed(**json.loads(done.stdout))


def measure(config: EngineConfig) -> EngineSpeed:
    """Measure in this process."""
    core = openvino.Core()
    network = core.read_model(config.model)
    network.reshape({IMAGE.name: list(ONE_IMAGE)})
    precision = {"INFERENCE_PRECISION_HINT": config.precision}
    alone = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "LATENCY", **precision})
    latencies_ms = _one_at_a_time(alone, config.seconds)
    streams = core.compile_model(network, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", **precision})
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
    return EngineSpeed(_all_streams(streams, config.seconds), float(p50_ms), float(p99_ms))


def _one_at_a_time(model: Any, seconds: float) -> list[float]:
    request, image = model.create_infer_request(), _images(1)[0]
    latencies_ms: list[float] = []
    request.infer({IMAGE.name: image})  # allocates
    until_s = time.perf_counter() + seconds
    while (started_s := time.perf_counter()) < until_s:
        request.infer({IMAGE.name: image}, share_inputs=True)
        latencies_ms.append((time.perf_counter() - started_s) * 1e3)
    return latencies_ms


def _all_streams(model: Any, seconds: float) -> float:
    """Images/s through OpenVINO's own queue of asynchronous requests."""
    queue, images = openvino.AsyncInferQueue(model), _images(16)
    for image in images:
        queue.start_async({IMAGE.name: image})
    queue.wait_all()
    started_s, count = time.perf_counter(), 0
    while time.perf_counter() < started_s + seconds:
        queue.start_async({IMAGE.name: images[count % len(images)]})
        count += 1
    queue.wait_all()
    return count / (time.perf_counter() - started_s)


def _images(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, *ONE_IMAGE), np.uint8)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr.strip() or done.stdout.strip()).splitlines() or [f"status {done.returncode}"])[-1]


if __name__ == "__main__":
    print(json.dumps(asdict(measure(tyro.cli(EngineConfig)))))
