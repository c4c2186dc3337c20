"""NVIDIA's own parser and builder, those of TensorRT-RTX, which need no GPU and have the API of TensorRT 11.

Every call that a build makes is made here, but for the timing cache and the inspector: those are in tests/gpu.
"""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from contract.samples import IMAGES_NAME, MANIFEST_NAME, read_manifest, write_manifest
from contract.spec import MAX_BATCH_SIZE
from convert.engine import library
from convert.engine.options import BuildOptions
from convert.engine.precision import PrecisionError
from convert.engine.source import convolution_precisions
from convert.engine.typed_graph import for_tensorrt
from convert.export_onnx import to_onnx
from convert.int8.ranges import CalibrationOptions
from convert.quantize import QuantizeConfig, quantize
from convert.serving_model import ServingModel
from tests.convert.conftest import Models
from training.network.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parents[3]
WEIGHTS = PROJECT / "weights"
DEFAULTS = BuildOptions()


@pytest.fixture(scope="module")
def builder(rtx_installed: None) -> ModuleType:  # noqa: ARG001
    library.select("tensorrt-rtx")
    from convert.engine import builder

    return builder


@pytest.fixture(scope="module")
def half(models: Models) -> ModelProto:
    return onnx.load(models.fp16_onnx)


@pytest.fixture(scope="module")
def int8(models: Models, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    """The small network quantized as convert.quantize does, and as TensorRT gets it; its scores do not matter here."""
    folder = tmp_path_factory.mktemp("train")
    shutil.copyfile(faces.with_name(IMAGES_NAME), folder / IMAGES_NAME)
    write_manifest(read_manifest(faces).assign(split="train"), folder / MANIFEST_NAME)
    config = QuantizeConfig((folder / MANIFEST_NAME,), models.onnx, calibration=CalibrationOptions(faces=4))
    return for_tensorrt(quantize(config))


def build(builder: ModuleType, model: ModelProto, options: BuildOptions = DEFAULTS, **changes: Any) -> Any:
    settings = {"stated": convolution_precisions(model), "cancelled": threading.Event()} | changes
    return builder.build(model.SerializeToString(), options, **settings)


def parse(builder: ModuleType, model: ModelProto) -> Any:
    """The network of NVIDIA's parser. The caller keeps what it is made of, which C++ refers to."""
    trt = builder.trt
    owner = trt.Builder(builder._LOG)
    network = owner.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder._LOG)
    assert parser.parse(model.SerializeToString())
    return network, parser, owner


def layers_of(network: Any) -> list[Any]:
    return [network.get_layer(index) for index in range(network.num_layers)]


# What is built


def test_an_engine_of_each_precision_is_built(builder: ModuleType, models: Models, half: ModelProto) -> None:
    fp32, fp16 = (build(builder, model) for model in (onnx.load(models.onnx), half))
    assert fp32.types.convolution_types == {"fp32": 25}
    assert fp16.types.convolution_types == {"fp16": 25}
    assert "HALF" not in fp32.types.layer_types
    assert len(fp16.plan) < 0.6 * len(fp32.plan)


def test_int8_convolutions_are_fed_by_int8_and_nothing_else_in_the_trunk_is_float32(
    builder: ModuleType, int8: ModelProto
) -> None:
    engine = build(builder, int8)
    assert engine.types.convolution_types == {"int8": 22, "fp16": 3}
    network, *_ = parse(builder, int8)
    for layer in layers_of(network):
        if layer.type.name in ("CONVOLUTION", "POOLING", "DEQUANTIZE"):
            assert layer.get_output(0).dtype.name == "HALF", layer.name


@pytest.mark.slow
def test_the_weights_that_ship_are_built(builder: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = load_checkpoint(WEIGHTS / "agegendernet-128.safetensors")
    half = to_onnx(ServingModel(checkpoint, half=True).eval())
    assert build(builder, half).types.convolution_types == {"fp16": 25}
    int8 = for_tensorrt(onnx.load(WEIGHTS / "agegendernet-128.int8.onnx"))
    assert build(builder, int8).types.convolution_types == {"int8": 22, "fp16": 3}
    assert "TensorRT-RTX:" not in capsys.readouterr().out  # where warnings go


@pytest.mark.parametrize("model", ["fp32", "half", "int8"])
def test_the_parser_warns_of_nothing_and_computes_no_shapes(
    builder: ModuleType, model: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    parsed = onnx.load(request.getfixturevalue("models").onnx) if model == "fp32" else request.getfixturevalue(model)
    network, *_ = parse(builder, parsed)
    integers = [layer for layer in layers_of(network) if layer.get_output(0).dtype.name in ("INT32", "INT64")]
    assert {layer.type.name for layer in integers} == {"CONSTANT"}  # axes of Squeeze and Unsqueeze
    assert "TensorRT-RTX:" not in capsys.readouterr().out


def test_the_engines_scales_are_those_of_the_file(builder: ModuleType, int8: ModelProto) -> None:
    trt = builder.trt
    network, *_ = parse(builder, int8)
    producers = {layer.get_output(0).name: layer for layer in layers_of(network)}
    found = []
    for layer in layers_of(network):
        if layer.type.name == "DEQUANTIZE":
            constant = producers[layer.get_input(1).name]
            constant.__class__ = trt.IConstantLayer  # the bindings give the base class
            found.append(np.sort(np.asarray(constant.weights).ravel()))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    nodes = [node for node in int8.graph.node if node.op_type == "DequantizeLinear"]
    expected = [np.sort(values[node.input[1]].ravel()) for node in nodes]
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.sort(np.concatenate(expected)))


# What is refused before the build


def edited(model: ModelProto, edit: Callable[[onnx.GraphProto], None]) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]  # what shape inference found of the graph as it was
    edit(copied.graph)
    return copied


def through(graph: onnx.GraphProto, node: NodeProto, data_type: int, back: int) -> None:
    """Compute a node in another type, by a cast of its data before it and one back after it."""
    position, output = list(graph.node).index(node), node.output[0]
    into = helper.make_node("Cast", [node.input[0]], [f"{output}_in"], to=data_type)
    out_of = helper.make_node("Cast", [f"{output}_other"], [output], to=back)
    node.input[0], node.output[0] = into.output[0], out_of.input[0]
    graph.node.insert(position + 1, out_of)
    graph.node.insert(position, into)


def test_one_float32_convolution_in_a_half_precision_model_is_refused(builder: ModuleType, half: ModelProto) -> None:
    node_name = [node.name for node in half.graph.node if node.op_type == "Conv"][7]

    def widen(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.name == node_name)
        through(graph, node, TensorProto.FLOAT, TensorProto.FLOAT16)
        for tensor in graph.initializer:
            if tensor.name in node.input:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))

    with pytest.raises(PrecisionError, match=rf"for 1 types .*: convolution {node_name} is fp32 and should be fp16$"):
        build(builder, edited(half, widen), stated=convolution_precisions(half))


def test_a_convolution_of_which_one_side_alone_is_int8_is_refused(builder: ModuleType, int8: ModelProto) -> None:
    stated = convolution_precisions(int8)
    node_name = [name for name, precision in stated.items() if precision == "int8"][3]

    def dequantize_weights(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.name == node_name)
        dequantize = next(other for other in graph.node if other.output[0] == node.input[1])
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        scales = values[dequantize.input[1]].reshape(-1, 1, 1, 1)
        weights = (values[dequantize.input[0]] * scales).astype(np.float16)
        node.input[1] = f"{node_name}_weights"
        graph.initializer.append(numpy_helper.from_array(weights, node.input[1]))

    with pytest.raises(PrecisionError, match=f"convolution {node_name} is fp16 and should be int8"):
        build(builder, edited(int8, dequantize_weights), stated=stated)


def test_a_head_in_half_precision_is_refused(builder: ModuleType, half: ModelProto) -> None:
    def narrow(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if "age" in node.output)
        through(graph, node, TensorProto.FLOAT16, TensorProto.FLOAT)

    with pytest.raises(PrecisionError, match=r"of a head is fp16 and should be fp32"):
        build(builder, edited(half, narrow))


def test_a_model_of_other_tensors_is_refused(builder: ModuleType, half: ModelProto) -> None:
    def rename(graph: onnx.GraphProto) -> None:
        next(node for node in graph.node if "age" in node.output).output[0] = graph.output[0].name = "years"

    with pytest.raises(PrecisionError, match="'years': 'FLOAT'"):
        build(builder, edited(half, rename))


def test_bytes_that_the_parser_takes_for_an_empty_model_are_refused(builder: ModuleType) -> None:
    with pytest.raises(PrecisionError, match=r"tensors are \{\}"):
        builder.build(b"text", DEFAULTS, {}, threading.Event())


def test_a_file_that_is_cut_off_is_refused_in_the_parsers_words(builder: ModuleType, half: ModelProto) -> None:
    with pytest.raises(builder.BuildError, match=r"cannot parse the ONNX model:\n.*MODEL_DESERIALIZE_FAILED"):
        builder.build(half.SerializeToString()[:1000], DEFAULTS, {}, threading.Event())


def test_an_operator_that_the_parser_does_not_know_is_named_with_its_node(
    builder: ModuleType, half: ModelProto
) -> None:
    def misname(graph: onnx.GraphProto) -> None:
        next(node for node in graph.node if node.name == "node_relu").op_type = "Frobnicate"

    with pytest.raises(builder.BuildError, match=r"node \d+ 'node_relu' \(Frobnicate\): "):
        build(builder, edited(half, misname), stated={})


# Settings


@pytest.mark.parametrize(
    "options",
    [
        BuildOptions(optimization_level=0),
        BuildOptions(optimization_level=5),
        BuildOptions(workspace_mib=1024),
        BuildOptions(opt_batch=MAX_BATCH_SIZE),
    ],
    ids=str,
)
def test_each_setting_is_taken(builder: ModuleType, half: ModelProto, options: BuildOptions) -> None:
    assert build(builder, half, options).types.convolution_types == {"fp16": 25}


def test_a_workspace_that_no_layer_can_work_in_is_said(builder: ModuleType, half: ModelProto) -> None:
    with pytest.raises(builder.BuildError, match=r"built no engine:\n(.*\n)*.*OutOfMemory"):
        build(builder, half, BuildOptions(workspace_mib=1))


def test_a_profile_out_of_order_is_refused_by_the_library_too(builder: ModuleType, half: ModelProto) -> None:
    with pytest.raises(builder.BuildError, match="refuses the optimization profile"):
        build(builder, half, BuildOptions(min_batch=8, opt_batch=4, max_batch=2))


def test_compute_capabilities_are_chosen_and_by_default_all_from_ampere(builder: ModuleType, half: ModelProto) -> None:
    assert build(builder, half).compute_capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert build(builder, half, BuildOptions(compute_capabilities=("8.9",))).compute_capabilities == ("8.9",)
    with pytest.raises(builder.BuildError, match=r"'node_\w+' for Turing \(SM75\): FP32 GEMM is not supported"):
        build(builder, half, BuildOptions(compute_capabilities=("7.5",)))


def test_what_check_options_refuses_the_library_does_not_have(
    builder: ModuleType, half: ModelProto, capsys: pytest.CaptureFixture[str]
) -> None:
    build(builder, half, BuildOptions(hardware_compatibility="ampere_plus"))
    assert "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX" in capsys.readouterr().out
    with pytest.raises(builder.BuildError, match="libnvinfer_lean"):
        build(builder, half, BuildOptions(version_compatible=True))


# A build under way


def test_a_cancelled_build_ends_and_the_next_one_is_not_told_of_it(builder: ModuleType, half: ModelProto) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(builder.BuildError, match="BuildCanceled"):
        build(builder, half, cancelled=cancelled)
    with pytest.raises(builder.BuildError) as later:
        build(builder, half, BuildOptions(workspace_mib=1))
    assert "BuildCanceled" not in str(later.value)


def test_progress_is_shown_phase_by_phase(
    builder: ModuleType, half: ModelProto, capsys: pytest.CaptureFixture[str]
) -> None:
    build(builder, half)
    shown = capsys.readouterr().err
    assert {"Building engine", "Optimizing graph"} <= {
        line.split(":")[0].strip("\x1b[A ") for line in shown.split("\r")
    }


def test_a_process_builds_with_one_library(builder: ModuleType) -> None:
    assert builder.TRAITS.title == "TensorRT-RTX"
    with pytest.raises(library.LibraryUnavailableError, match="this process builds with TensorRT-RTX"):
        library.select("tensorrt")
