"""One `predict(images)` per runtime, with the signature that the evaluation takes: images in, Predictions out.

    predict = load(Path("model_repository/agegendernet/1/model.onnx"), "openvino")
    predict(images).age

A runtime's package is imported only when it is asked for, so that none is needed by those who use another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from contract.spec import IMAGE, OUTPUTS, Images, Predictions, check_images
from evaluation.metrics import Predict

Runtime = Literal["torch", "onnx", "openvino", "tensorrt"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
_BY_SUFFIX: dict[str, Runtime] = {".safetensors": "torch", ".onnx": "onnx", ".plan": "tensorrt"}
_OUTPUT_NAMES = [tensor.name for tensor in OUTPUTS]


class RuntimeUnavailableError(RuntimeError):
    """The runtime is not installed, or this machine cannot run it; the message says what to do."""


class ModelFileError(ValueError):
    """The file does not exist or is not what the runtime loads; the message says how to make it."""


def runtime_for(model: Path) -> Runtime:
    """The runtime that a model file is meant for. Raises ModelFileError for an unknown suffix."""
    try:
        return _BY_SUFFIX[model.suffix]
    except KeyError:
        raise ModelFileError(
            f"{model} has none of the suffixes {', '.join(_BY_SUFFIX)}; name the runtime with --runtime"
        ) from None


def load(model: Path, runtime: Runtime) -> Predict:
    """Load a model file and answer one blank image with it. Raises ModelFileError or RuntimeUnavailableError."""
    if not model.is_file():
        raise ModelFileError(f"{model} does not exist; make it with {_MADE_BY[runtime]}")
    try:
        predict = _LOADERS[runtime](model)
        predict(np.zeros((1, *IMAGE.dims), np.uint8))
    except RuntimeUnavailableError:
        raise
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"runtime {runtime!r} needs {error.name!r}, which is not installed") from error
    except Exception as error:  # every runtime has its own types for a broken file or foreign tensors
        raise ModelFileError(f"{model} cannot be used with runtime {runtime!r}: {error}") from error
    return lambda images: predict(np.ascontiguousarray(check_images(images)))


def _load_torch(checkpoint: Path) -> Predict:
    import torch

    from training.evaluate import predictor
    from training.network.checkpoint import load_checkpoint

    return predictor(load_checkpoint(checkpoint), torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _load_onnx(model: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda images: _predictions(session.run(_OUTPUT_NAMES, {IMAGE.name: images}))


def _load_openvino(model: Path) -> Predict:
    import openvino

    # "f32": processors with bfloat16 would otherwise round every layer to it, and parity would measure that.
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def predict(images: Images) -> Predictions:
        results = request.infer({IMAGE.name: images}, share_inputs=True)
        return _predictions(results[name] for name in _OUTPUT_NAMES)

    return predict


def _load_tensorrt(plan: Path) -> Predict:
    from convert.engine.runner import EngineRunner

    return EngineRunner(plan)


def _predictions(outputs: Iterable[NDArray[Any]]) -> Predictions:
    return Predictions.from_outputs(dict(zip(_OUTPUT_NAMES, outputs, strict=True)))


_LOADERS: dict[Runtime, Callable[[Path], Predict]] = {
    "torch": _load_torch,
    "onnx": _load_onnx,
    "openvino": _load_openvino,
    "tensorrt": _load_tensorrt,
}
_MADE_BY: dict[Runtime, str] = {
    "torch": "make train",
    "onnx": "make export",
    "openvino": "make export",
    "tensorrt": "make engine",
}
