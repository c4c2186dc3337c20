"""Samples follow what TensorRT's inspector writes at detailed verbosity: 10.x "Format/Datatype", 11.x "DataType"."""

import json
from typing import Any

import pytest

from convert.engine.precision import PrecisionError, examine, prove

Layer = dict[str, Any]


def tensor(name: str, type_text: str, *, major: int = 10) -> dict[str, Any]:
    stated = {"Format/Datatype": type_text} if major == 10 else {"Format": "Row major linear", "DataType": type_text}
    return {"Name": name, "Location": "Device", "Dimensions": [-1, 64, 32, 32], **stated}


def convolution(node: str, type_text: str, *, weights: str | None, major: int = 10) -> Layer:
    return {
        "Name": f"{node} + node_relu",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor("relu", type_text, major=major)],
        "Outputs": [tensor("relu_1", type_text, major=major)],
        "ParameterType": "Convolution",
        "Kernel": [3, 3],
        "Stride": [1, 1],
        "OutMaps": 64,
        "Groups": 1,
        **({"Weights": {"Type": weights, "Count": 36864}} if weights else {}),
        "Bias": {"Type": "Float", "Count": 64},
        "Activation": "RELU",
        "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x64_stage3",
        "TacticValue": "0x5f2d2a3ea6b0c3f1",
        "StreamId": 0,
        "Metadata": f"[ONNX Layer: {node}]\u001e[ONNX Layer: node_relu]",
    }


REFORMAT: Layer = {
    "Name": "Reformatting CopyNode for Input Tensor 0 to node_Conv_1 + node_relu",
    "LayerType": "Reformat",
    "Inputs": [tensor("relu", "Row major linear FP32")],
    "Outputs": [tensor("reformatted", "Channel major FP16 format where channel % 8 == 0")],
    "ParameterType": "Reformat",
    "Origin": "REFORMAT",
    "TacticValue": "0x00000000000003e8",
    "Metadata": "[ONNX Layer: node_Conv_1]",
}
# What Myelin, TensorRT's other compiler, writes: a preprocessing kernel, and a convolution as "correlation".
PREPROCESSING: Layer = {
    "Name": "__myl_CastTranDivSubDivCast_myl0_0",
    "LayerType": "kgen",
    "Inputs": [tensor("image", "UInt8")],
    "Outputs": [tensor("__mye120", "Half")],
    "TacticName": "__myl_CastTranDivSubDivCast_0x1c",
    "Metadata": "[ONNX Layer: node_Cast_0][ONNX Layer: node_Div_2]",
}


def myelin_convolution(node: str, type_text: str, *, layer_type: str = "correlation") -> Layer:
    return {
        "Name": f"{node}_myl0_1",
        "LayerType": layer_type,
        "Inputs": [tensor("__mye120", type_text), tensor("__mye_weights", type_text)],
        "Outputs": [tensor("__mye121", type_text)],
        "TacticName": "sm90_xmma_fprop_implicit_gemm",
        "Metadata": f"[ONNX Layer: {node}]",
    }


def inspector_json(*layers: Layer | str, major: int = 10) -> str:
    tail = {"Bindings": ["image", "age"]} if major == 10 else {"I/O Tensors": [{"Name": "image", "DataType": "UInt8"}]}
    return json.dumps({"Layers": list(layers), **tail})


HALF = {"node_Conv_1": "fp16"}


@pytest.mark.parametrize(
    "layer",
    [
        convolution("node_Conv_1", "Half", weights="Half"),
        convolution("node_Conv_1", "Channel major FP16 format where channel % 8 == 0", weights="Half"),
        convolution("node_Conv_1", "Half", weights="Half", major=11),
        convolution("node_Conv_1", "Half", weights=None, major=11),
        myelin_convolution("node_Conv_1", "Half"),
        myelin_convolution("node_Conv_1", "Half", layer_type="kgen"),
    ],
)
def test_a_half_precision_convolution_is_proven_however_it_is_written(layer: Layer) -> None:
    proof = prove(inspector_json(PREPROCESSING, REFORMAT, layer), HALF)
    assert proof.convolution_precisions == {"fp16": 1}
    assert proof.unnamed == ()


@pytest.mark.parametrize(
    "layer",
    [
        convolution("node_Conv_1", "Float", weights="Float"),
        convolution("node_Conv_1", "Row major linear FP32", weights=None),
        convolution("node_Conv_1", "Float", weights=None, major=11),
        convolution("node_Conv_1", "Half", weights="Float"),  # FP16 tensors around an FP32 kernel
        myelin_convolution("node_Conv_1", "Float"),
    ],
)
def test_a_convolution_that_fell_back_to_fp32_is_an_error_that_names_it(layer: Layer) -> None:
    with pytest.raises(PrecisionError, match=r"1 of 1 .*node_Conv_1 is fp16 in the ONNX model and fp32 in the engine"):
        prove(inspector_json(REFORMAT, layer), HALF)


def test_one_fp32_convolution_among_many_is_found() -> None:
    layers = [convolution(f"node_Conv_{i}", "Half", weights="Half") for i in range(1, 25)]
    layers.append(convolution("node_Conv_25", "Float", weights="Float"))
    with pytest.raises(PrecisionError, match=r"1 of 25 .*node_Conv_25"):
        prove(inspector_json(*layers), {f"node_Conv_{i}": "fp16" for i in range(1, 26)})


def test_a_copy_that_carries_the_convolutions_metadata_does_not_stand_for_it() -> None:
    with pytest.raises(PrecisionError, match="names no convolution"):
        prove(inspector_json(REFORMAT), HALF)


def test_layer_names_alone_prove_nothing() -> None:
    with pytest.raises(PrecisionError, match="detailed profiling verbosity"):
        prove(inspector_json("node_Conv_1 + node_relu", "node_Conv_2"), HALF)


def test_names_are_used_where_metadata_is_missing() -> None:
    layer = convolution("node_Conv_1", "Half", weights="Half")
    del layer["Metadata"]
    assert prove(inspector_json(layer), HALF).convolution_precisions == {"fp16": 1}


def test_a_node_is_not_mistaken_for_one_whose_name_it_begins() -> None:
    proof = examine(inspector_json(convolution("node_Conv_10", "Float", weights="Float")), HALF)
    assert proof.wrong == ()
    assert proof.unnamed == ("node_Conv_1",)


def test_a_convolution_that_no_layer_names_is_reported_beside_those_proven() -> None:
    stated = HALF | {"node_Conv_2": "fp16"}
    assert prove(inspector_json(convolution("node_Conv_1", "Half", weights="Half")), stated).unnamed == ("node_Conv_2",)


def test_separators_that_tensorrt_left_unescaped_are_read() -> None:
    text = inspector_json(convolution("node_Conv_1", "Half", weights="Half")).replace("\\u001e", "\x1e")
    assert "\x1e" in text
    assert prove(text, HALF).convolution_precisions == {"fp16": 1}


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": [{"Name": "a"b"}]}'])
def test_an_account_that_cannot_be_read_proves_nothing(text: str) -> None:
    with pytest.raises(PrecisionError, match="cannot be read"):
        prove(text, HALF)


def test_int8_is_proven_only_by_int8_weights() -> None:
    stated = {"node_Conv_1": "int8"}
    int8 = "Thirty-two wide channel vectorized row major Int8 format."
    assert prove(inspector_json(convolution("node_Conv_1", int8, weights="Int8")), stated).convolution_precisions == {
        "int8": 1
    }
    with pytest.raises(PrecisionError, match="is int8 in the ONNX model and fp16"):
        prove(inspector_json(convolution("node_Conv_1", "Half", weights="Half")), stated)


def test_an_fp32_engine_of_an_fp32_model_is_as_stated() -> None:
    proof = prove(inspector_json(convolution("node_Conv_1", "Float", weights="Float")), {"node_Conv_1": "fp32"})
    assert proof.layer_precisions == {"fp32": 1}


def test_layers_are_counted_by_what_they_take_in() -> None:
    layers = (PREPROCESSING, REFORMAT, convolution("node_Conv_1", "Half", weights="Half"))
    assert examine(inspector_json(*layers), HALF).layer_precisions == {"fp16": 2, "fp32": 1}
