import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pandas as pd
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from contract.repository import file_sha256
from contract.samples import (
    IMAGES_NAME,
    MANIFEST_NAME,
    ManifestError,
    load_samples,
    read_manifest,
    write_manifest,
)
from contract.spec import IMAGE, OUTPUTS, Predictions
from convert.engine.source import SourceModelError, convolution_precisions, read_source
from convert.engine.typed_graph import for_tensorrt, signed
from convert.errors import ModelFileError
from convert.int8.gate import gate
from convert.int8.ranges import CalibrationOptions, training_faces
from convert.int8.saturation import PAIR_LIMIT, saturating_weights, without_vnni
from convert.parity import ParityConfig, compare
from convert.quantize import GateError, QuantizeConfig, check_int8, main, quantize
from convert.runtimes import Runtime, load
from evaluation.limits import PARITY_FP32, Limits
from tests.convert.conftest import Models

IMAGE_CONVOLUTIONS = 22  # of 25; the other three make the maps of the spatial attention
ANY = Limits(age_mae_years=100, gender_accuracy=1, emotion_accuracy=1)  # an untrained network's scores are chance
NONE = Limits(age_mae_years=-100)


@pytest.fixture(scope="module")
def manifest(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faces of the other tests: the first half to train on, two to select on, the rest to test on."""
    folder = tmp_path_factory.mktemp("parts")
    table = read_manifest(faces)
    table["split"] = ["train"] * 12 + ["selection"] * 2 + ["holdout"] * (len(table) - 14)
    np.save(folder / IMAGES_NAME, np.load(faces.with_name(IMAGES_NAME)))
    write_manifest(table, folder / MANIFEST_NAME)
    return folder / MANIFEST_NAME


@pytest.fixture(scope="module")
def config(models: Models, manifest: Path) -> QuantizeConfig:
    return QuantizeConfig((manifest,), models.onnx, calibration=CalibrationOptions(faces=12), limits=ANY)


@pytest.fixture(scope="module")
def int8(config: QuantizeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    main(replace(config, out=path, report=path.with_suffix(".csv")))
    return path


@pytest.fixture(scope="module")
def for_onnxruntime(config: QuantizeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "ort.onnx"
    main(replace(config, out=path, target="onnxruntime"))
    return path


# Where the graph is quantized


def test_image_convolutions_are_int8_and_attention_is_not(int8: Path) -> None:
    stated = list(read_source(int8, "int8").values())
    assert stated.count("int8") == IMAGE_CONVOLUTIONS
    assert stated.count("fp32") == 3


def test_every_zero_point_is_zero_and_every_weight_signed_with_a_scale_a_channel(int8: Path) -> None:
    graph = onnx.load(int8).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert not any(numpy_helper.to_array(values[node.input[2]]).any() for node in nodes)
    weights = [values[node.input[0]] for node in nodes if node.input[0] in values]
    assert {tensor.data_type for tensor in weights} == {TensorProto.INT8}  # an int32 among them would be a bias
    scales = {node.input[0]: values[node.input[1]] for node in nodes if node.input[0] in values}
    assert all(scales[tensor.name].dims == [tensor.dims[0]] for tensor in weights)


def test_dense_layers_and_heads_stay_float(int8: Path) -> None:
    graph = onnx.load(int8).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert not any(dequantised & set(node.input) for node in graph.node if node.op_type == "Gemm")


def test_of_two_convolutions_that_are_added_the_shortcut_is_quantized(int8: Path, models: Models) -> None:
    graph = onnx.load(int8).graph
    kernels = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    shapes = {tensor.name: tensor.dims for tensor in onnx.load(models.onnx).graph.initializer}
    quantised = [
        kernels[node.input[0]] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in kernels
    ]
    assert len(quantised) == 3  # stages 2, 3 and 4 begin with one
    names = [node.input[1].removesuffix("_DequantizeLinear_Output") for node in quantised]
    assert all(shapes[name][2:] == [1, 1] for name in names)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="OpenVINO names its kernels so on x86 alone")
def test_openvino_runs_every_image_convolution_on_integers(int8: Path) -> None:
    compiled = openvino.Core().compile_model(int8, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kernels = [
        layer["primitiveType"].astype(str) for layer in layers if layer["layerType"].astype(str) == "Convolution"
    ]
    assert sum("I8" in kernel for kernel in kernels) == IMAGE_CONVOLUTIONS


def test_the_file_for_onnxruntime_runs_there_on_integers(for_onnxruntime: Path, int8: Path, tmp_path: Path) -> None:
    def integer_convolutions(model: Path) -> int:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / model.name)
        options.log_severity_level = 3  # a model that is saved optimized is warned of
        onnxruntime.InferenceSession(model, options)
        return sum(node.op_type == "QLinearConv" for node in onnx.load(tmp_path / model.name).graph.node)

    assert integer_convolutions(for_onnxruntime) == IMAGE_CONVOLUTIONS
    assert integer_convolutions(int8) < IMAGE_CONVOLUTIONS  # which is why there are two


# What it answers


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_runtimes_compute_what_the_quantized_graph_says(
    int8: Path, models: Models, manifest: Path, runtime: Runtime
) -> None:
    """Against the nodes one by one, none fused: how far rounding takes an untrained network from float says nothing."""
    images = next(load_samples(manifest).image_batches(10))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    unfused = onnxruntime.InferenceSession(int8, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in OUTPUTS]
    outputs = dict(zip(names, unfused.run(names, {IMAGE.name: images}), strict=True))
    expected, found = Predictions.from_outputs(outputs), load(int8, runtime)(images)
    assert np.corrcoef(found.age, expected.age)[0, 1] > 0.95
    np.testing.assert_allclose(found.gender, expected.gender, atol=0.1)
    assert np.abs(found.age - load(models.onnx, runtime)(images).age).max() > 1e-4  # it is another arithmetic


def test_it_is_made_alike_every_time(config: QuantizeConfig, int8: Path) -> None:
    assert quantize(config).SerializeToString() == onnx.load(int8).SerializeToString()


def test_the_model_describes_itself(int8: Path, models: Models) -> None:
    before, after = (
        {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props} for path in (models.onnx, int8)
    )
    made = after.pop("quantization")
    assert after == before | {"precision": "int8"}
    assert made["source_sha256"] == file_sha256(models.onnx)
    assert (made["faces"], made["method"], made["for"]) == (12, "minmax", "openvino")


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_methods_cut_ranges_off(config: QuantizeConfig, int8: Path, method: str) -> None:
    other = quantize(replace(config, calibration=replace(config.calibration, method=method, percentile=99.0)))
    largest = [
        max(
            float(numpy_helper.to_array(t).max())
            for t in m.graph.initializer
            if t.name.startswith("relu") and "scale" in t.name
        )
        for m in (other, onnx.load(int8))
    ]
    assert largest[0] < largest[1]


# Which faces are looked at


def test_calibration_sees_training_faces_alone(manifest: Path) -> None:
    images = np.load(manifest.with_name(IMAGES_NAME))
    found = training_faces([manifest], CalibrationOptions(faces=1000))
    np.testing.assert_array_equal(found, images[:12])


def test_datasets_share_calibration_evenly(manifest: Path) -> None:
    found = training_faces([manifest, manifest], CalibrationOptions(faces=7))
    assert len(found) == 7
    assert len(training_faces([manifest, manifest], CalibrationOptions(faces=100))) == 24


def test_a_dataset_without_training_faces_is_named(faces: Path) -> None:
    with pytest.raises(ManifestError, match="no face for train"):
        training_faces([faces], CalibrationOptions())


# The gate


def test_a_model_past_the_limits_leaves_no_file_and_a_report(config: QuantizeConfig, tmp_path: Path) -> None:
    out, report = tmp_path / "model.int8.onnx", tmp_path / "report.csv"
    out.write_bytes(b"of an earlier run")
    with pytest.raises(GateError, match=r"int8 in openvino, .*: age MAE [+-]\d.*limit -100"):
        main(replace(config, out=out, report=report, limits=NONE))
    assert list(tmp_path.iterdir()) == [report]
    judged = {"int8 in openvino", "int8 in openvino without VNNI", "int8 as TensorRT gets it"}
    assert set(pd.read_csv(report)["model"]) == judged


def test_a_file_that_is_there_is_checked_and_kept(config: QuantizeConfig, int8: Path) -> None:
    with pytest.raises(GateError):
        main(replace(config, out=int8, check_only=True, limits=NONE))
    main(replace(config, out=int8, check_only=True))
    assert int8.is_file()
    with pytest.raises(ModelFileError, match="without --check-only"):
        main(replace(config, out=int8.with_name("absent.onnx"), check_only=True))


# Processors without VNNI


@pytest.fixture(scope="module")
def eight_bits(int8: Path) -> Path:
    """The same weights in steps half as large: from -127 to 127."""
    model = onnx.load(int8)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            weights, scale = values[node.input[0]], values[node.input[1]]
            doubled = np.clip(2 * numpy_helper.to_array(weights).astype(int), -127, 127).astype(np.int8)
            weights.CopyFrom(numpy_helper.from_array(doubled, weights.name))
            scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) / np.float32(2), scale.name))
    path = int8.with_name("eight_bits.onnx")
    onnx.save(model, path)
    return path


def test_no_two_weights_overflow(int8: Path, for_onnxruntime: Path, eight_bits: Path) -> None:
    assert saturating_weights(onnx.load(int8)) == {}
    assert saturating_weights(onnx.load(for_onnxruntime)) == {}
    found = saturating_weights(onnx.load(eight_bits))
    assert len(found) == IMAGE_CONVOLUTIONS
    assert PAIR_LIMIT < max(found.values()) <= 2 * 127


@pytest.mark.parametrize("sign", [1, -1])
def test_two_weights_of_a_channel_and_sign_count_together(sign: int) -> None:
    def model(*weights: int) -> onnx.ModelProto:
        tensor = numpy_helper.from_array(np.array(weights, np.int8).reshape(2, 2, 1, 1), "w")
        node = onnx.helper.make_node("DequantizeLinear", ["w", "scale"], ["float"])
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], [tensor]))

    assert saturating_weights(model(127 * sign, sign, -127 * sign, -sign)) == {}
    assert saturating_weights(model(127 * sign, -127 * sign, 64 * sign, 64 * sign)) == {}
    assert saturating_weights(model(64 * sign, 65 * sign, 0, 0)) == {"w": 129}


def test_the_answers_are_those_of_processors_without_vnni(int8: Path, manifest: Path) -> None:
    images = next(load_samples(manifest).image_batches(10))
    here = load(int8, "openvino")(images)
    with without_vnni(int8) as predict:
        there = predict(images)
    np.testing.assert_allclose(there.age, here.age, atol=PARITY_FP32.age_years)
    np.testing.assert_allclose(there.emotion, here.emotion, atol=PARITY_FP32.emotion_probability)


def test_eight_bits_answer_wrongly_there(eight_bits: Path, int8: Path, manifest: Path) -> None:
    images = next(load_samples(manifest).image_batches(10))
    expected = load(int8, "openvino")(images).age  # the same weights, but for the largest of each channel
    with without_vnni(eight_bits) as predict:
        assert np.abs(predict(images).age - expected).max() > 5  # with exact sums at most 2.1


def test_a_model_that_can_overflow_is_refused(config: QuantizeConfig, eight_bits: Path) -> None:
    with pytest.raises(GateError, match=r"without VNNI would answer wrongly: two weights of .* add up to 2"):
        main(replace(config, out=eight_bits, check_only=True))


def test_two_arithmetics_that_differ_are_refused(models: Models, int8: Path, manifest: Path) -> None:
    candidates = {"one": load(models.onnx, "openvino"), "other": load(int8, "openvino")}
    _, failures = gate(candidates["one"], candidates, [manifest], ANY, alike=("one", "one"))
    assert failures == []
    _, failures = gate(candidates["one"], candidates, [manifest], ANY, alike=("one", "other"))
    assert failures
    assert all(line.startswith("other against one, ") for line in failures)


def test_a_model_in_a_process_of_its_own_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"), without_vnni(tmp_path / "absent.onnx"):
        pass


def test_only_a_float_model_is_quantized(config: QuantizeConfig, int8: Path) -> None:
    with pytest.raises(SourceModelError, match="computes in int8"):
        quantize(replace(config, onnx=int8))


def test_the_file_for_onnxruntime_is_checked_there(
    config: QuantizeConfig, for_onnxruntime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_int8(replace(config, target="onnxruntime"), for_onnxruntime)
    assert "int8 in onnxruntime against fp32" in capsys.readouterr().out


def test_parity_holds_an_int8_model_to_its_scores_in_each_runtime_of_onnx(
    int8: Path, models: Models, manifest: Path
) -> None:
    config = ParityConfig(manifest, models.checkpoint, int8_onnx=int8, int8=ANY)
    table, failures = compare(config, load_samples(manifest))
    assert failures == []
    largest = table[table["group"] == "all"].set_index("runtime")["age_years_max"]
    assert list(largest.index) == ["onnx int8", "openvino int8"]
    assert (largest > 1e-4).all()  # it is another arithmetic
    _, failures = compare(replace(config, runtimes=("torch", "onnx"), int8=NONE), load_samples(manifest))
    assert [line.split(" years")[0].rstrip("+-.0123456789") for line in failures] == ["onnx int8: age MAE "]


# What TensorRT gets


@pytest.fixture(scope="module")
def parsed(int8: Path) -> onnx.ModelProto:
    return for_tensorrt(onnx.load(int8))


def test_tensorrt_gets_signed_activations_and_half_precision_around_them(parsed: onnx.ModelProto, int8: Path) -> None:
    onnx.checker.check_model(parsed, full_check=True)
    assert TensorProto.UINT8 not in {tensor.data_type for tensor in parsed.graph.initializer}
    stated = read_source(int8, "int8")
    assert convolution_precisions(parsed) == {
        name: "fp16" if precision == "fp32" else precision for name, precision in stated.items()
    }


def test_tensorrts_form_answers_as_the_file_does(
    parsed: onnx.ModelProto, int8: Path, manifest: Path, tmp_path: Path
) -> None:
    onnx.save(parsed, tmp_path / "parsed.onnx")
    images = next(load_samples(manifest).image_batches(10))
    found, expected = (load(model, "openvino")(images) for model in (tmp_path / "parsed.onnx", int8))
    assert np.corrcoef(found.age, expected.age)[0, 1] > 0.95


def test_scales_reach_tensorrt_unrounded_those_of_unsigned_activations_widened(
    parsed: onnx.ModelProto, int8: Path
) -> None:
    """255 steps from 0 become 127: of 8 bits that are never negative, 7 are left."""
    before, after = _scales(onnx.load(int8)), _scales(parsed)
    assert before.keys() == after.keys()
    for name, (scale, zero_point) in before.items():
        factor = np.float32(255 / 127) if zero_point == np.uint8 else np.float32(1)
        np.testing.assert_array_equal(after[name][0], scale * factor)


def _scales(model: onnx.ModelProto) -> dict[str, tuple[NDArray[np.float32], np.dtype[Any]]]:
    """Scale and type of the zero point of each DequantizeLinear, by its node's name."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    return {node.name: (values[node.input[1]], values[node.input[2]].dtype) for node in nodes}


def test_a_float_model_reaches_tensorrt_as_it_is(models: Models) -> None:
    assert for_tensorrt(onnx.load(models.onnx)) == onnx.load(models.onnx)


def test_the_file_for_onnxruntime_is_refused_for_tensorrt(for_onnxruntime: Path) -> None:
    with pytest.raises(SourceModelError, match="without --for onnxruntime"):
        signed(onnx.load(for_onnxruntime))


def test_a_file_that_is_not_judged_for_tensorrt_is_no_source_of_an_engine(
    int8: Path, config: QuantizeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_source(int8, "int8")
    served_only = replace(config, tensorrt=False, out=tmp_path / "served.onnx")
    main(served_only)
    assert "as TensorRT gets it" not in capsys.readouterr().out
    with pytest.raises(SourceModelError, match="not judged as TensorRT gets it"):
        read_source(tmp_path / "served.onnx", "int8")
