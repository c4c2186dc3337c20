import dataclasses
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pytest
import tyro
from onnx import TensorProto, helper

from contract.gpu import Gpu
from contract.repository import (
    Profile,
    RepositoryError,
    engine_manifest_path,
    read_engine_manifest,
    write_engine_manifest,
)
from contract.spec import MAX_BATCH_SIZE
from convert.build_engine import EngineConfig, describe, interruptible, main, summary
from convert.engine.options import BuildOptions, BuildOptionsError, check_profile
from convert.engine.precision import PrecisionProof
from convert.engine.source import SourceModelError, convolution_precisions, precision_of, read_source
from tests.contract.test_gpu import write_nvidia_smi
from tests.convert.conftest import Models

PROJECT = Path(__file__).resolve().parents[2]
STUBS = sorted(PROJECT.parent.glob("shared/tensorrt-stubs/*"))
CONFIG = PROJECT / "model_repository" / "agegendernet" / "config.pbtxt"


# What the ONNX model states


def test_the_exported_models_state_their_precision(models: Models) -> None:
    assert set(read_source(models.onnx, "fp32").values()) == {"fp32"}
    half = read_source(models.fp16_onnx, "fp16")
    assert set(half.values()) == {"fp16"}
    assert len(half) == 25  # every convolution of the network, each by a name of its own


def test_a_model_in_another_precision_is_refused_before_the_build(models: Models) -> None:
    with pytest.raises(SourceModelError, match=r"computes in fp32, not in fp16: .*--precision fp16"):
        read_source(models.onnx, "fp16")


def test_a_model_with_other_tensors_is_refused(models: Models, tmp_path: Path) -> None:
    model = onnx.load(models.onnx)
    model.graph.output[0].name = "years"
    onnx.save(model, tmp_path / "renamed.onnx")
    with pytest.raises(SourceModelError, match="years FP32"):
        read_source(tmp_path / "renamed.onnx", "fp32")


def test_a_fixed_batch_size_is_refused(models: Models, tmp_path: Path) -> None:
    model = onnx.load(models.onnx)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(SourceModelError, match="a fixed batch size"):
        read_source(tmp_path / "fixed.onnx", "fp32")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"text")
    with pytest.raises(SourceModelError, match=r"model\.onnx is not an ONNX model"):
        read_source(tmp_path / "model.onnx", "fp32")
    with pytest.raises(SourceModelError, match="make export"):
        read_source(tmp_path / "absent.onnx", "fp32")


def quantised_convolution() -> onnx.ModelProto:
    """Q-DQ around the data, DQ on the weights, as quantisers write it for TensorRT."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "scale", "zero"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["y"], name="quantised"),
        helper.make_node("Conv", ["y", "w"], ["z"], name="plain"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("zero", TensorProto.INT8, [], [0]),
            helper.make_tensor("wq", TensorProto.INT8, [1, 1, 1, 1], [1]),
            helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [1.0]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_quantised_convolutions_are_told_from_plain_ones() -> None:
    found = convolution_precisions(quantised_convolution())
    assert found == {"quantised": "int8", "plain": "fp32"}
    assert precision_of(found) == "int8"


def test_a_graph_of_two_precisions_is_called_mixed() -> None:
    assert precision_of({"a": "fp16", "b": "fp32"}) == "mixed"


# What may be built


def test_the_default_profile_fits_the_repositorys_configuration() -> None:
    check_profile(BuildOptions().profile, CONFIG)


@pytest.mark.parametrize("largest", [MAX_BATCH_SIZE - 1, MAX_BATCH_SIZE * 2])
def test_a_profile_that_ends_elsewhere_than_the_servers_batches_is_refused(largest: int) -> None:
    with pytest.raises(BuildOptionsError, match=f"largest batch is {largest}, but .* max_batch_size {MAX_BATCH_SIZE}"):
        check_profile(Profile(1, 8, largest), CONFIG)


def test_a_profile_out_of_order_is_refused() -> None:
    with pytest.raises(BuildOptionsError, match="min <= opt <= max"):
        check_profile(Profile(1, MAX_BATCH_SIZE + 1, MAX_BATCH_SIZE), CONFIG)


def test_a_configuration_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(RepositoryError, match="is not a model configuration"):
        check_profile(BuildOptions().profile, tmp_path / "config.pbtxt")
    with pytest.raises(BuildOptionsError, match="--model-config"):
        check_profile(BuildOptions().profile, tmp_path / "absent.pbtxt")


def test_the_builders_settings_are_options_of_the_program() -> None:
    config = tyro.cli(EngineConfig, args=["--opt-batch", "8", "--workspace-mib", "512", "--version-compatible"])
    assert config.options == BuildOptions(opt_batch=8, workspace_mib=512, version_compatible=True)


# What is written beside the engine

PROOF = PrecisionProof({"fp16": 30, "fp32": 8}, {"fp16": 24}, (), ("node_Conv_25",))


def test_the_manifest_says_what_the_engine_is_bound_to(models: Models, tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    config = EngineConfig(onnx=models.fp16_onnx)
    manifest = describe(config, "11.2.1.2", Gpu("NVIDIA L4", "8.9"), PROOF)
    write_engine_manifest(manifest, plan)
    assert engine_manifest_path(plan).name == "model.plan.json"
    assert read_engine_manifest(plan) == manifest
    written = json.loads(engine_manifest_path(plan).read_text())
    assert written["profile"] == {"min": 1, "opt": 16, "max": MAX_BATCH_SIZE}
    assert written["compute_capability"] == "8.9"
    assert written["layer_precisions"] == {"fp16": 30, "fp32": 8}
    assert re.fullmatch("[0-9a-f]{64}", written["onnx_sha256"])


def test_the_summary_does_not_hide_what_was_not_proven() -> None:
    assert summary(PROOF, dict.fromkeys(map(str, range(25)), "fp16")) == (
        "proven of 25 convolutions: 24 in fp16; the inspector does not name node_Conv_25"
    )


# The build itself


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_the_program_says_where_to_build(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nvidia_smi(tmp_path, "GPU-0, NVIDIA L4, 8.9")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    config = EngineConfig(models.fp16_onnx, "fp16", out=tmp_path / "model.plan", model_config=CONFIG)
    with pytest.raises(Exception, match="'tensorrt' is not installed; build in the server's container"):
        main(config)
    assert not config.out.exists()


def test_a_wrong_profile_is_found_before_anything_else_is_needed(tmp_path: Path) -> None:
    config = EngineConfig(tmp_path / "absent.onnx", model_config=CONFIG)
    with pytest.raises(BuildOptionsError):
        main(dataclasses.replace(config, options=BuildOptions(max_batch=8)))


def test_ctrl_c_cancels_the_build_and_waits_for_it() -> None:
    cancelled, ended = threading.Event(), threading.Event()

    def build() -> None:
        time.sleep(0.2)  # until the main thread waits
        os.kill(os.getpid(), signal.SIGINT)  # what Ctrl-C does
        assert cancelled.wait(timeout=10)  # as TensorRT learns of it at its next step
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        interruptible(build, cancelled)
    assert ended.is_set()


def test_a_build_that_is_not_interrupted_gives_its_result_or_its_error() -> None:
    assert interruptible(lambda: 7, threading.Event()) == 7
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, threading.Event())


# TensorRT cannot be installed everywhere: its real signatures stand in for it


def check_types(stubs: Path, source: Path, cache: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={cache}", "--shadow-file"]
    checked = "convert/engine/builder.py"
    environment = {**os.environ, "MYPYPATH": str(stubs)}
    answer = subprocess.run(
        [*command, checked, str(source), checked], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    return answer.stdout


@pytest.mark.skipif(not STUBS, reason="no type stubs of TensorRT beside the project")
@pytest.mark.parametrize("stubs", STUBS, ids=lambda path: path.name)
def test_every_call_of_the_builder_fits_tensorrts_signatures(stubs: Path, tmp_path: Path) -> None:
    builder = PROJECT / "convert" / "engine" / "builder.py"
    assert "Success" in check_types(stubs, builder, tmp_path / "cache")
    broken = tmp_path / "builder.py"
    broken.write_text(builder.read_text().replace("parser.num_errors", "parser.nb_errors"))
    assert 'has no attribute "nb_errors"' in check_types(stubs, broken, tmp_path / "cache")


def test_building_needs_no_pytorch() -> None:
    """The server's container, where engines are built, has none."""
    code = "import sys, convert.build_engine; print({'torch', 'pandas', 'onnxruntime', 'openvino'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
