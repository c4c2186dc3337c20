"""What quantization adds to every face alike is taken off again, in the bias of the first dense layer.

Rounding shifts the mean of features, not only each of them; a shift reaches the answers as an age that is too high for
nearly everyone. Bias correction after Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
Correction (ICCV 2019), here with the mean over calibration faces and only where integers end and floats begin.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from tqdm import trange

from contract.spec import IMAGE, Images

_BATCH_SIZE = 16


def bias_corrected(int8: ModelProto, fp32: ModelProto, faces: Images) -> ModelProto:
    """`int8` with the first dense layer's outputs, on average over `faces`, those of `fp32`."""
    corrected = ModelProto()
    corrected.CopyFrom(int8)
    layer, values = first_dense_layer(corrected), {t.name: t for t in corrected.graph.initializer}
    shift = _means(int8, layer.output[0], faces) - _means(fp32, first_dense_layer(fp32).output[0], faces)
    bias = numpy_helper.to_array(values[layer.input[2]]) - shift
    # By another name: where biases are equal, as in an untrained network, several layers share one.
    layer.input[2] += "_corrected"
    corrected.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), layer.input[2]))
    return corrected


def first_dense_layer(model: ModelProto) -> NodeProto:
    """The first with a bias; the attention's before it have none."""
    return next(node for node in model.graph.node if node.op_type == "Gemm" and len(node.input) == 3)


def _means(model: ModelProto, output: str, faces: Images) -> NDArray[np.float64]:
    """Of a tensor [N, features], over all faces."""
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = 0.0
    for start in trange(0, len(faces), _BATCH_SIZE, desc="bias correction", unit="batch", leave=False):
        [values] = session.run([output], {IMAGE.name: faces[start : start + _BATCH_SIZE]})
        sums += np.asarray(values, np.float64).sum(axis=0)
    return np.asarray(sums / len(faces))
