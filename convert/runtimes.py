"""One `predict(images)` per runtime, with the signature that the evaluation takes: images in, Predictions out.

    predict = load(Path("model_repository/agegendernet/1/model.onnx"), "openvino")
    predict(images).age

A runtime's package is imported only when it is asked for, so that none is needed by those who use another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from contract.spec import IMAGE, OUTPUTS, Images, Predictions, check_images
from convert.errors import ModelFileError, RuntimeUnavailableError
from evaluation.run import Predict

Runtime = Literal["torch", "onnx", "openvino", "tensorrt"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
_OUTPUT_NAMES = [tensor.name for tensor in OUTPUTS]


def runtime_for(model: Path) -> Runtime:
    """Return the first runtime that loads such a file. Raises ModelFileError for an unknown suffix."""
    for runtime in RUNTIMES:
        if runs(runtime, model):
            return runtime
    suffixes = ", ".join(dict.fromkeys(loader.suffix for loader in _LOADERS.values()))
    raise ModelFileError(f"{model} has none of the suffixes {suffixes}; name the runtime with --runtime")


def runs(runtime: Runtime, model: Path) -> bool:
    """Return whether a runtime loads files with the model's suffix."""
    return _LOADERS[runtime].suffix == model.suffix


def load(model: Path, runtime: Runtime) -> Predict:
    """Load a model file and answer one blank image with it. Raises ModelFileError or RuntimeUnavailableError."""
    if not model.is_file():
        raise ModelFileError(f"{model} does not exist; make it with {_LOADERS[runtime].made_by}")
    try:
        predict = _LOADERS[runtime].load(model)
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


@dataclass(frozen=True)
class _Loader:
    suffix: str  # of the files that it loads
    made_by: str  # the command that makes one
    load: Callable[[Path], Predict]


_LOADERS: dict[Runtime, _Loader] = {
    "torch": _Loader(".safetensors", "make train", _load_torch),
    "onnx": _Loader(".onnx", "make export", _load_onnx),
    "openvino": _Loader(".onnx", "make export", _load_openvino),
    "tensorrt": _Loader(".plan", "make engine", _load_tensorrt),
}
