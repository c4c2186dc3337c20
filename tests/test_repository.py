"""The hand-written model configurations against the contract."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from tritonclient.grpc import model_config_pb2 as pb

from contract.repository import read_model_config
from contract.spec import (
    DECODE_MODEL_NAME,
    EMOTION,
    EMOTIONS,
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    IMAGE,
    MAX_BATCH_SIZE,
    MODEL_NAME,
    OUTPUTS,
    PHOTO_MODEL_NAME,
    PHOTO_OUTPUTS,
    TensorSpec,
)

REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"
ENGINE = f"{MODEL_NAME}/config.pbtxt"
CPU = f"{MODEL_NAME}/configs/cpu.pbtxt"
DECODE = f"{DECODE_MODEL_NAME}/config.pbtxt"
ENSEMBLE = f"{ENSEMBLE_NAME}/config.pbtxt"
PHOTO = f"{PHOTO_MODEL_NAME}/config.pbtxt"
TENSORS = {
    ENGINE: ((IMAGE,), OUTPUTS),
    CPU: ((IMAGE,), OUTPUTS),
    DECODE: ((ENCODED_IMAGE,), (IMAGE,)),
    ENSEMBLE: ((ENCODED_IMAGE,), OUTPUTS),
    PHOTO: ((ENCODED_IMAGE,), PHOTO_OUTPUTS),
}
_TYPES = {"UINT8": pb.TYPE_UINT8, "INT32": pb.TYPE_INT32, "FP32": pb.TYPE_FP32, "BYTES": pb.TYPE_STRING}


def read(path: str) -> pb.ModelConfig:
    return read_model_config(REPOSITORY / path)


def specs(tensors: tuple[TensorSpec, ...]) -> list[tuple[str, int, list[int]]]:
    return [(tensor.name, _TYPES[tensor.dtype], list(tensor.dims)) for tensor in tensors]


def test_every_configuration_is_known_here() -> None:
    assert {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*.pbtxt")} == set(TENSORS)


@pytest.mark.parametrize("path", TENSORS)
def test_names_types_dims_and_batch_size_are_the_contracts(path: str) -> None:
    config = read(path)
    taken, given = TENSORS[path]
    assert config.name == Path(path).parts[0]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == specs(taken)
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == specs(given)
    assert config.max_batch_size == (0 if path == PHOTO else MAX_BATCH_SIZE)


@pytest.mark.parametrize("path", [ENGINE, CPU])
def test_emotions_are_labelled_in_the_contracts_order(path: str) -> None:
    labels = {output.name: output.label_filename for output in read(path).output}
    assert (REPOSITORY / MODEL_NAME / labels[EMOTION.name]).read_text().split() == list(EMOTIONS)


def test_engine_configuration_is_for_tensorrt_and_cpu_configuration_is_not() -> None:
    assert read(ENGINE).platform == "tensorrt_plan"
    assert read(CPU).backend == "python"


def test_every_captured_batch_size_is_warmed_up_with_the_contracts_input() -> None:
    config = read(ENGINE)
    captured = [graph.batch_size for graph in config.optimization.cuda.graph_spec]
    assert config.optimization.cuda.graphs
    assert captured == sorted(set(captured))
    assert (captured[0], captured[-1]) == (1, MAX_BATCH_SIZE)
    assert [sample.batch_size for sample in config.model_warmup] == captured
    for sample in config.model_warmup:
        [(name, tensor)] = sample.inputs.items()
        assert (name, tensor.data_type, list(tensor.dims)) == specs((IMAGE,))[0]


def test_engine_refuses_overload_instead_of_queueing_without_end() -> None:
    policy = read(ENGINE).dynamic_batching.default_queue_policy
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds > 0
    assert policy.max_queue_size >= MAX_BATCH_SIZE


@pytest.mark.parametrize(
    ("path", "limit"),
    [(CPU, "max_waiting_images"), (DECODE, "max_waiting_requests"), (PHOTO, "max_waiting_photos")],
)
def test_python_models_bound_their_queue_themselves(path: str, limit: str) -> None:
    config = read(path)
    assert int(config.parameters[limit].string_value) >= MAX_BATCH_SIZE
    # Any queue policy makes server 2.51 hold back a request for up to 500 ms when its only instance is taking another.
    assert not config.dynamic_batching.HasField("default_queue_policy")


def test_ensemble_feeds_each_tensor_to_the_model_that_names_it() -> None:
    steps = read(ENSEMBLE).ensemble_scheduling.step
    assert [step.model_name for step in steps] == [DECODE_MODEL_NAME, MODEL_NAME]
    for step, path in zip(steps, (DECODE, ENGINE), strict=True):
        taken, given = TENSORS[path]
        assert dict(step.input_map) == {tensor.name: tensor.name for tensor in taken}
        assert dict(step.output_map) == {tensor.name: tensor.name for tensor in given}


@pytest.mark.parametrize("path", sorted(REPOSITORY.rglob("*.py")), ids=lambda path: "/".join(path.parts[-3:]))
def test_python_models_import_only_the_contract_and_what_the_server_has(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imports |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in imports} - set(sys.stdlib_module_names)
    packages -= {neighbour.stem for neighbour in path.parent.glob("*.py")}
    assert packages <= {"contract", "numpy", "openvino", "PIL", "triton_python_backend_utils"}
