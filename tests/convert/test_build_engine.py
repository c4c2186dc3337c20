import importlib.metadata
import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import tyro
from onnx import TensorProto, helper

from contract.repository import EngineManifest, Profile, RepositoryError, file_sha256, read_engine_manifest
from contract.spec import MAX_BATCH_SIZE
from convert.build_engine import EngineConfig, main, summary
from convert.engine.layer_types import TypeProof
from convert.engine.library import Library
from convert.engine.options import BuildOptions, BuildOptionsError, check_profile
from convert.engine.precision import PrecisionProof
from convert.engine.source import SourceModelError, convolution_precisions, precision_of, read_source
from tests.contract.test_gpu import write_nvidia_smi
from tests.convert.conftest import Models

PROJECT = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize(
    ("library", "options", "said"),
    [
        ("tensorrt", BuildOptions(compute_capabilities=("8.9",)), "--compute-capabilities is TensorRT-RTX's"),
        ("tensorrt-rtx", BuildOptions(hardware_compatibility="ampere_plus"), "--hardware-compatibility and"),
        ("tensorrt-rtx", BuildOptions(version_compatible=True), "are TensorRT's"),
    ],
)
def test_a_setting_that_the_library_does_not_have_is_refused(
    library: Library, options: BuildOptions, said: str, tmp_path: Path
) -> None:
    config = EngineConfig(library, tmp_path / "absent.onnx", model_config=CONFIG, options=options)
    with pytest.raises(BuildOptionsError, match=said):
        main(config)


# The program


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "convert.build_engine", "--model-config", CONFIG, *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("rtx_installed")
def test_an_engine_is_built_and_described_without_a_gpu(models: Models, tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    done = run("--library", "tensorrt-rtx", "--onnx", models.fp16_onnx, "--out", plan)
    assert done.returncode == 0, done.stderr
    assert "convolutions as parsed: 25 fp16; nothing inspected, since no GPU is needed" in done.stdout
    manifest = read_engine_manifest(plan)
    assert manifest == EngineManifest(
        library="tensorrt-rtx",
        tensorrt_version=importlib.metadata.version("tensorrt-rtx-cu13-libs"),
        gpu_name="any of these compute capabilities",
        compute_capability="8.0, 8.6, 8.9, 12.0, 12.1",
        onnx_sha256=file_sha256(models.fp16_onnx),
        profile=Profile(1, 16, MAX_BATCH_SIZE),
        precision="fp16",
        layer_types=manifest.layer_types,
        convolution_types={"fp16": 25},
        layer_precisions={},
        convolution_precisions={},
        hardware_compatibility="none",
        version_compatible=False,
        built_at=manifest.built_at,
    )
    assert manifest.layer_types["HALF"] > manifest.layer_types["FLOAT"]
    assert 10e6 < plan.stat().st_size < 30e6  # 9.4 million weights of two bytes
    assert {path.name for path in tmp_path.iterdir()} == {"model.plan", "model.plan.json"}


@pytest.mark.usefixtures("rtx_installed")
def test_ctrl_c_cancels_the_build_and_leaves_nothing_behind(models: Models, tmp_path: Path) -> None:
    arguments = ["--library", "tensorrt-rtx", "--onnx", models.onnx, "--precision", "fp32", "--model-config", CONFIG]
    command = [sys.executable, "-u", "-m", "convert.build_engine", *arguments, "--out", tmp_path / "model.plan"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"building {tmp_path / 'model.plan'} with TensorRT-RTX ")
        process.send_signal(signal.SIGINT)  # what Ctrl-C does
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 130  # as a shell reports SIGINT
    assert messages.endswith("interrupted; no engine was written\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("rtx_installed")
def test_what_the_library_refuses_is_one_error_and_no_engine(models: Models, tmp_path: Path) -> None:
    done = run(
        *("--library", "tensorrt-rtx", "--onnx", models.fp16_onnx, "--out", tmp_path / "model.plan"),
        *("--compute-capabilities", "9.0"),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: TensorRT-RTX ")
    assert "builds for compute capabilities 7.5, 8.0, 8.6, 8.9, 12.0, 12.1, not 9.0" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_without_tensorrt_the_program_says_where_to_build(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nvidia_smi(tmp_path, "GPU-0, NVIDIA L4, 8.9")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    done = run("--onnx", models.fp16_onnx, "--out", tmp_path / "model.plan")
    assert done.returncode == 1
    assert done.stderr == (
        "error: the package 'tensorrt' is not installed; build in the server's container with make engine DOCKER=1\n"
    )
    assert not (tmp_path / "model.plan").exists()


def test_a_wrong_profile_is_found_before_anything_else_is_needed(tmp_path: Path) -> None:
    config = EngineConfig(onnx=tmp_path / "absent.onnx", model_config=CONFIG, options=BuildOptions(max_batch=8))
    with pytest.raises(BuildOptionsError):
        main(config)


def test_building_needs_no_pytorch() -> None:
    """The server's container, where engines are built, has none."""
    code = "import sys, convert.build_engine; print({'torch', 'pandas', 'onnxruntime', 'openvino'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


# What a build with TensorRT adds: the inspector's proof


def test_the_summary_does_not_hide_what_was_not_proven() -> None:
    types = TypeProof({"HALF": 116, "FLOAT": 59}, {"fp16": 25})
    inspected = PrecisionProof({"fp16": 30, "fp32": 8}, {"fp16": 24}, (), ("node_Conv_25",))
    assert summary(types, inspected) == (
        "convolutions as parsed: 25 fp16; as the inspector says: 24 fp16 (it does not name node_Conv_25)"
    )
