"""Can INT8 products overflow? A proof from the weights, and the same model in the arithmetic of older processors.

Without VNNI a processor multiplies unsigned 8-bit activations by signed 8-bit weights and adds each two products in
16 bits, which saturate: 255 * 127 * 2 is 64,770, and the highest is 32,767. The answers are then silently wrong. Two
weights of which the sum is within -128 and 128 cannot do that, whatever the image: 255 * 128 is 32,640.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from contract.spec import Images, Predictions
from convert.runtimes import load
from evaluation.run import Predict

PAIR_LIMIT = 128  # of the sum of two weights: 255 times as much fits into 16 bits
WITHOUT_VNNI = {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # read by the library of OpenVINO's kernels, once


def saturating_weights(model: ModelProto) -> dict[str, int]:
    """Return each layer's weights of which two can saturate, by name with their largest sum; empty is the proof.

    Which two meet depends on the kernel, so any two of an output channel count.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    consumers = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    weights = {node.input[0]: values[node.input[0]] for node in consumers if node.input[0] in values}
    sums = {name: _largest_sum(numpy_helper.to_array(t)) for name, t in weights.items() if len(t.dims) > 1}
    return {name: total for name, total in sums.items() if total > PAIR_LIMIT}


def _largest_sum(weights: NDArray[np.int8]) -> int:
    """Return the largest sum of two weights of the same sign and output channel; weights: [channels, ...]."""
    channels = np.sort(weights.reshape(len(weights), -1).astype(np.int32))
    return int(max(np.clip(channels[:, -2:], 0, None).sum(1).max(), -np.clip(channels[:, :2], None, 0).sum(1).min()))


@contextmanager
def without_vnni(model: Path) -> Iterator[Predict]:
    """Load a model into OpenVINO as it would compute on a processor with AVX2 alone.

    In a process of its own, since the library asks for the variable once. Raises ModelFileError.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        process.submit(_load, str(model)).result()
        yield lambda images: process.submit(_predict, images).result()


_loaded: list[Predict] = []  # in the process of its own


def _load(model: str) -> None:
    os.environ.update(WITHOUT_VNNI)
    _loaded.append(load(Path(model), "openvino"))


def _predict(images: Images) -> Predictions:
    return _loaded[0](images)
