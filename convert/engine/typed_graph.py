"""The ONNX model with the types that TensorRT is to compute in: a strongly typed engine has no others.

Only a quantized model is changed. What OpenVINO serves has unsigned activations and leaves in float32 whatever is not
quantized; TensorRT quantizes to signed integers alone, and is quick with the rest in half precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from convert.engine.source import SourceModelError, convolution_precisions, precision_of

_SCALED = ("QuantizeLinear", "DequantizeLinear")
_OPSET = 23  # the first in which a scale may have another type than what it scales


def for_tensorrt(model: ModelProto) -> ModelProto:
    """Return the model as TensorRT parses it; one that quantizes nothing is returned as it is.

    Raises SourceModelError for a quantized model that TensorRT could not take.
    """
    return _with_half_trunk(signed(model)) if precision_of(convolution_precisions(model)) == "int8" else model


def signed(model: ModelProto) -> ModelProto:
    """Return a copy whose unsigned activations are signed ones of the same range: scale * 255 / 127.

    Raises SourceModelError where a zero point is not 0, which TensorRT needs.
    """
    copied = ModelProto()
    copied.CopyFrom(model)
    initializers = {tensor.name: tensor for tensor in copied.graph.initializer}
    quantizers = [node for node in copied.graph.node if node.op_type == "QuantizeLinear"]
    for scale_name, zero_point_name in {(node.input[1], node.input[2]) for node in quantizers}:
        scale, zero_point = initializers[scale_name], initializers[zero_point_name]
        if numpy_helper.to_array(zero_point).any():
            raise SourceModelError(
                f"{zero_point_name} is not 0, which TensorRT needs; make the model with python -m convert.quantize, "
                "without --for onnxruntime"
            )
        if zero_point.data_type == TensorProto.UINT8:
            scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(255 / 127), scale_name))
            zero_point.CopyFrom(numpy_helper.from_array(np.array(0, np.int8), zero_point_name))
    return copied


def _with_half_trunk(model: ModelProto) -> ModelProto:
    """Return a copy that computes in half precision between its first quantizer and its heads; scales stay as they are.

    The heads begin where the way to one output leaves the ways to the others.
    """
    copied = ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    inputs = {name: list(node.input) for node in graph.node for name in node.output}
    shared = set.intersection(*(leading_to(output.name, inputs) for output in graph.output))
    entry = next(node.input[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.output[0] in shared)
    trunk = shared - leading_to(entry, inputs)
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    casts: dict[str, tuple[str, int]] = {entry: (f"{entry}_half", TensorProto.FLOAT16)}
    halved: dict[str, TensorProto] = {}
    for node in graph.node:
        in_trunk = node.output[0] in trunk
        for index, name in enumerate(node.input):
            if in_trunk and name in weights and node.op_type not in _SCALED:
                values = numpy_helper.to_array(weights[name]).astype(np.float16)
                halved[name] = numpy_helper.from_array(values, f"{name}_half")
                node.input[index] = halved[name].name
            elif in_trunk and name == entry:
                node.input[index] = casts[entry][0]
            elif not in_trunk and name in trunk:
                casts[name] = (f"{name}_float", TensorProto.FLOAT)
                node.input[index] = casts[name][0]
        if in_trunk and node.op_type == "DequantizeLinear":
            node.attribute.append(helper.make_attribute("output_dtype", TensorProto.FLOAT16))
    nodes = list(_with_casts(graph, casts))
    used = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in (*graph.initializer, *halved.values()) if tensor.name in used]
    copied.graph.CopyFrom(helper.make_graph(nodes, graph.name, graph.input, graph.output, initializers))
    copied.opset_import[0].version = _OPSET
    return copied


def leading_to(tensor: str, inputs: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the names of all computed tensors that `tensor` is computed from, its own among them.

    inputs: for each computed tensor, what it is computed from.
    """
    found: set[str] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if name in inputs and name not in found:
            found.add(name)
            waiting.extend(inputs[name])
    return found


def _with_casts(graph: GraphProto, casts: Mapping[str, tuple[str, int]]) -> Iterator[NodeProto]:
    """Yield the nodes, each followed by the cast of what it computes."""
    for node in graph.node:
        yield node
        for name in node.output:
            if name in casts:
                output, data_type = casts[name]
                yield helper.make_node("Cast", [name], [output], name=f"{output}_cast", to=data_type)
