import copy
import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from contract.spec import EMOTIONS, IMAGE, OUTPUTS, Images
from convert.export_onnx import ExportError, check_export, export
from convert.runtimes import load
from convert.serving_model import PrecisionError, ServingModel
from training.network.checkpoint import Checkpoint
from training.network.model import AgeGenderNet


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Untrained, but with batch-norm statistics and heads that make answers differ from face to face."""
    torch.manual_seed(0)
    network = AgeGenderNet()
    network.train()(torch.randn(8, 3, 128, 128))
    torch.nn.init.normal_(network.age_head[-1].weight, std=5.0)
    torch.nn.init.normal_(network.emotion_head[-1].weight, std=5.0)
    return Checkpoint(network.eval(), 144, {"seed": 0}, {"epoch": 1})


@pytest.fixture(scope="module")
def images() -> Images:
    return np.random.default_rng(0).integers(0, 256, (5, *IMAGE.dims), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(checkpoint, path, precision="fp32", images=images, source_sha256="abc")
    return path


def test_names_types_and_dims_are_the_contracts(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        (IMAGE.name, "tensor(uint8)", ["batch", *IMAGE.dims])
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        (t.name, "tensor(float)", ["batch", *t.dims]) for t in OUTPUTS
    ]


def test_the_graph_holds_nothing_that_tensorrt_would_stumble_over(exported: Path) -> None:
    graph = onnx.load(exported).graph
    operators = Counter(node.op_type for node in graph.node)
    assert not operators.keys() & {"Shape", "Range", "Gather", "Reshape", "BatchNormalization"}
    assert operators["Resize"] == 1
    assert [node.op_type for node in graph.node if IMAGE.name in node.input] == ["Cast"]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_any_batch_size_answers_as_pytorch(exported: Path, checkpoint: Checkpoint, images: Images, count: int) -> None:
    found = onnxruntime.InferenceSession(exported).run(None, {IMAGE.name: images[:count]})
    with torch.inference_mode():
        expected = ServingModel(checkpoint)(torch.from_numpy(images[:count]))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_the_model_describes_itself(exported: Path) -> None:
    properties = {p.key: json.loads(p.value) for p in onnx.load(exported).metadata_props}
    assert properties["emotions"] == list(EMOTIONS)
    assert properties["precision"] == "fp32"
    assert properties["checkpoint_sha256"] == "abc"
    assert properties["config"] == {"seed": 0}


def test_the_model_does_not_tell_where_it_was_made(exported: Path) -> None:
    assert str(Path(__file__).parents[2]).encode() not in exported.read_bytes()


def test_half_precision_is_in_the_trunk_alone(checkpoint: Checkpoint, images: Images, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "half.onnx", precision="fp16", images=images)
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "half.onnx"))
    types = {i.name: i.data_type for i in model.graph.initializer}
    weights = {n.op_type: Counter() for n in model.graph.node if n.op_type in ("Conv", "Gemm")}
    for node in model.graph.node:
        if node.op_type in weights:
            weights[node.op_type][types[node.input[1]]] += 1
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert set(weights["Conv"]) == {half}
    assert weights["Gemm"][single] == 6  # two layers in each of three heads
    assert all(o.type.tensor_type.elem_type == single for o in model.graph.output)


def rounded(checkpoint: Checkpoint) -> Checkpoint:
    """Weights as a released checkpoint has them: numbers of half precision, in float32."""
    network = copy.deepcopy(checkpoint.network)
    network.load_state_dict({name: t.half().to(t.dtype) for name, t in network.state_dict().items()})
    return dataclasses.replace(checkpoint, network=network)


def test_weights_stored_in_half_precision_are_those_of_the_checkpoint(
    checkpoint: Checkpoint, images: Images, exported: Path, tmp_path: Path
) -> None:
    path, plain = tmp_path / "stored.onnx", tmp_path / "plain.onnx"
    export(rounded(checkpoint), path, precision="fp32", images=images, weights="fp16")
    export(rounded(checkpoint), plain, precision="fp32", images=images)
    assert path.stat().st_size < 0.52 * exported.stat().st_size
    graph = onnx.load(path).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    values |= {node.output[0]: values[node.input[0]] for node in graph.node if node.input[0] in values}
    weights = [values[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    half = [tensor for tensor in weights if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert len(half) >= 21  # of 25: the exporter itself widens the smallest
    trained = [m.weight for m in rounded(checkpoint).network.modules() if isinstance(m, torch.nn.Conv2d)]
    kept = {onnx.numpy_helper.to_array(tensor).astype(np.float32).tobytes() for tensor in half}
    assert kept <= {weight.detach().numpy().tobytes() for weight in trained}
    for runtime in ("onnx", "openvino"):
        ours, theirs = (load(model, runtime)(images) for model in (path, plain))
        np.testing.assert_allclose(ours.age, theirs.age, atol=1e-4)
        np.testing.assert_allclose(ours.gender, theirs.gender, atol=1e-6)
        np.testing.assert_allclose(ours.emotion, theirs.emotion, atol=1e-6)


def test_weights_that_half_precision_would_change_are_refused(
    checkpoint: Checkpoint, images: Images, tmp_path: Path
) -> None:
    with pytest.raises(PrecisionError, match=r"weights of stem\.0 are not exact .* training\.release"):
        export(checkpoint, tmp_path / "stored.onnx", precision="fp32", images=images, weights="fp16")
    assert not list(tmp_path.iterdir())


def test_exporting_leaves_the_checkpoint_as_it_was(checkpoint: Checkpoint) -> None:
    ServingModel(checkpoint, half=True)
    assert all(p.dtype == torch.float32 for p in checkpoint.network.parameters())


def test_a_model_that_answers_otherwise_is_not_written(exported: Path, checkpoint: Checkpoint, images: Images) -> None:
    other = dataclasses.replace(checkpoint, network=AgeGenderNet().eval())
    torch.nn.init.constant_(other.network.age_head[-1].bias, 50.0)
    with pytest.raises(ExportError, match="Nothing was written"):
        check_export(onnx.load(exported), ServingModel(other), images, "fp32")
