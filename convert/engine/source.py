"""What an ONNX model states before TensorRT sees it: the contract's tensors, and the precision of every convolution.

TensorRT takes precision from the graph alone, so the graph is where to find out that a "half-precision" model is none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from contract.program import UserError
from contract.spec import IMAGE, OUTPUTS, TensorSpec

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_PRECISION_OF: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
_DTYPE_OF: dict[int, str] = {TensorProto.UINT8: "UINT8", TensorProto.FLOAT: "FP32"}


class SourceModelError(UserError, ValueError):
    """The ONNX model is not one to build this engine from; the message says what to export instead."""


def read_source(path: Path, precision: Precision) -> dict[str, str]:
    """Return the precision of each convolution in the file by name, once it is known to be what was asked for.

    Raises SourceModelError for a broken file, other tensors than the contract's, or another precision.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise SourceModelError(f"{path} does not exist; make it with make export") from None
    except Exception as error:  # protobuf's DecodeError, onnx's checker errors
        raise SourceModelError(f"{path} is not an ONNX model: {error}") from error
    check_contract(model)
    convolutions = convolution_precisions(model)
    if (found := precision_of(convolutions)) != precision:
        raise SourceModelError(
            f"{path} computes in {found}, not in {precision}: TensorRT takes the precision from the graph. Export it "
            f"with python -m convert.export_onnx --precision {precision}, or build with --precision {found}"
        )
    if precision == "int8" and not _judged_for_tensorrt(model):
        raise SourceModelError(
            f"{path} was not judged as TensorRT gets it, with half the steps; make one that is with "
            "python -m convert.quantize --tensorrt"
        )
    return convolutions


def _judged_for_tensorrt(model: ModelProto) -> bool:
    """Whether the quantization's own account, where there is one, says so."""
    made = next((entry.value for entry in model.metadata_props if entry.key == "quantization"), "{}")
    return bool(json.loads(made).get("judged_for_tensorrt", True))


def check_contract(model: ModelProto) -> None:
    """Raise SourceModelError unless inputs and outputs are the contract's, with a free batch dimension."""
    found = [_spec(value) for value in (*model.graph.input, *model.graph.output)]
    expected = [(str(tensor), True) for tensor in (IMAGE, *OUTPUTS)]
    if found != expected:
        raise SourceModelError(
            f"the ONNX model has tensors {', '.join(name for name, _ in found)}"
            f"{'' if all(free for _, free in found) else ' (a fixed batch size)'}; the contract is "
            f"{', '.join(name for name, _ in expected)}, any batch size. Export it with python -m convert.export_onnx"
        )


def convolution_precisions(model: ModelProto) -> dict[str, str]:
    """Return each convolution's precision by node name: its weights', or int8 where both operands are dequantised."""
    model = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {
        node.name: "int8"
        if dequantised.issuperset(node.input[:2])
        else _PRECISION_OF.get(types[node.input[1]], "other")
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def precision_of(convolutions: dict[str, str]) -> str:
    """Return one word for a graph: int8 where any convolution is quantised, the common one, "mixed", or "none"."""
    found = set(convolutions.values())
    if "int8" in found:
        return "int8"
    return found.pop() if len(found) == 1 else "mixed" if found else "none"


def _spec(value: ValueInfoProto) -> tuple[str, bool]:
    """The tensor as the contract writes it, and whether its first dimension is free."""
    tensor = value.type.tensor_type
    batch, *dims = tensor.shape.dim or [onnx.TensorShapeProto.Dimension()]
    dtype = _DTYPE_OF.get(tensor.elem_type, TensorProto.DataType.Name(tensor.elem_type))
    return str(TensorSpec(value.name, dtype, tuple(dim.dim_value for dim in dims))), not batch.HasField("dim_value")
