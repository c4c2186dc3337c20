"""Where quantization goes in the graph: explicit QuantizeLinear and DequantizeLinear nodes (Q/DQ) around convolutions.

Written for integer kernels that fuse convolution, residual add and ReLU: every convolution takes 8-bit images and
weights, what comes out of it stays float up to the next ReLU. So do the attention, dense layers and heads, which cost
little and decide the answers. Every zero point is 0 and weights are signed, one scale a channel. Activations that
cannot be negative are unsigned, which gives them twice the steps and spares AVX-512 VNNI, whose products are unsigned
by signed, the correction for a zero point; convert.engine.typed_graph makes of them what TensorRT takes: signed ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import QDQQuantizer, QuantType, TensorData

from convert.int8.ranges import Ranges

Target = Literal["openvino", "onnxruntime"]
# Operators whose inputs and outputs need a range.
OPERATORS: dict[Target, tuple[str, ...]] = {
    "openvino": ("Conv", "MaxPool"),
    "onnxruntime": ("Conv", "MaxPool", "Add", "Relu"),
}


def quantized(model: ModelProto, ranges: Ranges, target: Target = "openvino") -> ModelProto:
    """A copy of the float model with Q/DQ: for ONNX Runtime, or for OpenVINO and, by typed_graph, for TensorRT."""
    model = onnx.shape_inference.infer_shapes(model)
    if target == "openvino":
        return _for_fusing_kernels(model, ranges)
    return _for_onnxruntime(model, ranges)


def image_convolutions(model: ModelProto) -> list[NodeProto]:
    """Convolutions that make feature maps; the attention's, which make one map of weights, are not among them."""
    channels = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    return [node for node in model.graph.node if node.op_type == "Conv" and channels[node.input[1]] > 1]


def _for_fusing_kernels(model: ModelProto, ranges: Ranges) -> ModelProto:
    nodes = [*image_convolutions(model), *_of_type(model, "MaxPool")]
    shortcuts = list(_convolved_shortcuts(model))
    unsigned = {node.output[0] for node in model.graph.node if node.op_type in ("Relu", "MaxPool")}
    inputs = {node.input[0] for node in nodes}
    quantizer = QDQQuantizer(
        model,
        tensors_range=_tensor_data(ranges, unsigned),
        nodes_to_quantize=[node.name for node in nodes],
        extra_options={
            # What is convolved is added to before it is rounded, and a quantized bias TensorRT does not take.
            "OpTypesToExcludeOutputQuantization": ["Conv", "MaxPool"],
            "QuantizeBias": False,
            "ForceQuantizeNoInputCheck": True,
            "QDQKeepRemovableActivations": True,
            "TensorQuantOverrides": {
                name: [{"quant_type": QuantType.QInt8, "symmetric": True}]
                for name in (inputs | set(shortcuts)) - unsigned
            },
        },
        **_COMMON,
    )
    for name in shortcuts:
        quantizer.quantize_activation_tensor(name)
    return _finished(quantizer)


def _for_onnxruntime(model: ModelProto, ranges: Ranges) -> ModelProto:
    """Its integer convolution needs 8 bits on every side, zero points where they help, and a quantized bias."""
    nodes = [*image_convolutions(model), *(n for kind in ("MaxPool", "Add", "Relu") for n in _of_type(model, kind))]
    quantizer = QDQQuantizer(
        model,
        tensors_range=_tensor_data(ranges, set()),
        nodes_to_quantize=[node.name for node in nodes],
        extra_options={},
        **_COMMON,
    )
    return _finished(quantizer)


_COMMON = {
    "per_channel": True,
    "reduce_range": True,  # 7-bit weights: with 8 bits products overflow on older processors, see int8.saturation
    "weight_qType": QuantType.QInt8,
    "activation_qType": QuantType.QUInt8,
    "nodes_to_exclude": [],
    "op_types_to_quantize": ["Conv", "MaxPool", "Add", "Relu"],
}


def _convolved_shortcuts(model: ModelProto) -> Iterator[str]:
    """Of each sum of two convolutions the one of the smaller kernel: kept in 8 bits while the other one is computed."""
    producers = {name: node for node in model.graph.node for name in node.output}
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    for node in _of_type(model, "Add"):
        convolutions = [
            producers[name] for name in node.input if name in producers and producers[name].op_type == "Conv"
        ]
        if len(convolutions) == 2:
            yield min(convolutions, key=lambda convolution: sizes[convolution.input[1]]).output[0]


def _of_type(model: ModelProto, operator: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def _tensor_data(ranges: Ranges, unsigned: set[str]) -> dict[str, TensorData]:
    """As the quantizer takes ranges; a symmetric one of a tensor that cannot be negative begins at 0."""
    return {
        name: TensorData(lowest=np.float32(0 if name in unsigned else low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }


def _finished(quantizer: QDQQuantizer) -> ModelProto:
    quantizer.quantize_model()
    quantizer.model.topological_sort()  # it appends its nodes at the end
    model: ModelProto = quantizer.model.model
    onnx.checker.check_model(model, full_check=True)
    return model
