"""The three models of the repository, asked over the wire of the real server."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from contract.images import canonical
from contract.spec import (
    AGE,
    DECODE_MODEL_NAME,
    EMOTION,
    EMOTIONS,
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    IMAGE,
    MAX_BATCH_SIZE,
    MODEL_NAME,
    OUTPUTS,
    Images,
    Predictions,
)
from evaluation.run import Predict
from serving.server import TritonServer

NOT_AN_IMAGE = b"no picture at all"


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> Any:
    return {"grpc": tritonclient.grpc, "http": tritonclient.http}[request.param]


def ask(server: TritonServer, protocol: Any, model: str, values: Any, outputs: Any = None) -> Any:
    tensor = ENCODED_IMAGE if model in (DECODE_MODEL_NAME, ENSEMBLE_NAME) else IMAGE
    array = np.asarray(values, tensor.numpy_dtype).reshape(-1, *tensor.dims)
    url = server.grpc_url if protocol is tritonclient.grpc else server.http_url
    with protocol.InferenceServerClient(url.partition("://")[2]) as client:
        request = protocol.InferInput(tensor.name, list(array.shape), tensor.dtype)
        request.set_data_from_numpy(array)
        return client.infer(model, [request], outputs=outputs, headers=server.headers)


def predictions(result: Any) -> Predictions:
    return Predictions.from_outputs({tensor.name: result.as_numpy(tensor.name) for tensor in OUTPUTS})


@pytest.fixture(scope="module")
def expected(repository: Path) -> Predict:
    """What ONNX Runtime says of the model that the server serves."""
    session = onnxruntime.InferenceSession(
        repository / MODEL_NAME / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = [tensor.name for tensor in OUTPUTS]
    return lambda images: Predictions.from_outputs(
        dict(zip(names, session.run(names, {IMAGE.name: images}), strict=True))
    )


def assert_same(found: Predictions, wanted: Predictions) -> None:
    np.testing.assert_allclose(found.age, wanted.age, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.gender, wanted.gender, atol=1e-4)
    np.testing.assert_allclose(found.emotion, wanted.emotion, atol=1e-4)


def encode(image: Images, format_name: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).resize((320, 240)).save(buffer, format_name)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [1, 3, MAX_BATCH_SIZE])
def test_tensors_are_answered_as_onnx_runtime_answers_them(
    triton_server: TritonServer, protocol: Any, noise: Images, expected: Predict, count: int
) -> None:
    images = np.resize(noise, (count, *IMAGE.dims))
    assert_same(predictions(ask(triton_server, protocol, MODEL_NAME, images)), expected(images))


def test_every_one_of_many_requests_in_flight_gets_its_own_answer(
    triton_server: TritonServer, noise: Images, expected: Predict
) -> None:
    batches = [np.roll(noise, shift, axis=0)[: 1 + shift % 5] for shift in range(40)]
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda b: ask(triton_server, tritonclient.grpc, MODEL_NAME, b), batches))
    for batch, result in zip(batches, results, strict=True):
        assert_same(predictions(result), expected(batch))


def test_lone_requests_between_crowds_are_answered_alike(
    triton_server: TritonServer, noise: Images, expected: Predict
) -> None:
    """Each way of computing takes over from the other: all cores for one, a stream for each of many."""
    wanted = expected(noise)
    for _ in range(3):
        for n in range(3):
            assert_same(
                predictions(ask(triton_server, tritonclient.grpc, MODEL_NAME, noise[n])), expected(noise[n : n + 1])
            )
        with ThreadPoolExecutor(8) as threads:
            crowd = list(threads.map(lambda n: ask(triton_server, tritonclient.grpc, MODEL_NAME, noise[n]), range(8)))
        assert_same(Predictions.concatenate(map(predictions, crowd)), wanted)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_encoded_images_are_answered_as_their_canonical_images(
    triton_server: TritonServer, protocol: Any, noise: Images, expected: Predict, format_name: str
) -> None:
    encoded = [encode(image, format_name) for image in noise[:3]]
    faces = np.stack([canonical(data) for data in encoded])
    decoded = ask(triton_server, protocol, DECODE_MODEL_NAME, encoded).as_numpy(IMAGE.name)
    np.testing.assert_array_equal(decoded, faces)
    attributes = predictions(ask(triton_server, protocol, ENSEMBLE_NAME, encoded))
    assert_same(attributes, expected(faces))


def test_an_output_that_was_not_asked_for_is_not_sent(triton_server: TritonServer, noise: Images) -> None:
    wanted = [tritonclient.grpc.InferRequestedOutput(AGE.name)]
    response = ask(triton_server, tritonclient.grpc, MODEL_NAME, noise[:2], wanted).get_response()
    assert [output.name for output in response.outputs] == [AGE.name]


@pytest.mark.parametrize("model", [MODEL_NAME, ENSEMBLE_NAME])
def test_emotions_can_be_asked_for_by_name(triton_server: TritonServer, noise: Images, model: str) -> None:
    value = encode(noise[0], "PNG") if model == ENSEMBLE_NAME else noise[:1]
    wanted = [tritonclient.grpc.InferRequestedOutput(EMOTION.name, class_count=len(EMOTIONS))]
    answer = ask(triton_server, tritonclient.grpc, model, value, wanted).as_numpy(EMOTION.name)
    probability, index, name = zip(*(entry.decode().split(":") for entry in answer.ravel()), strict=True)
    assert [EMOTIONS[int(i)] for i in index] == list(name)
    assert sorted(map(float, probability), reverse=True) == list(map(float, probability))


@pytest.mark.parametrize("model", [DECODE_MODEL_NAME, ENSEMBLE_NAME])
def test_a_bad_image_is_the_fault_of_its_own_request_alone(
    triton_server: TritonServer, noise: Images, model: str
) -> None:
    good = encode(noise[0], "PNG")
    with ThreadPoolExecutor(8) as threads:
        pending = [
            threads.submit(ask, triton_server, tritonclient.grpc, model, NOT_AN_IMAGE if n % 2 else good)
            for n in range(8)
        ]
    for result in pending[::2]:
        assert result.exception() is None
    assert {status_of(result) for result in pending[1::2]} == {"StatusCode.INVALID_ARGUMENT"}


def test_a_bad_image_among_good_ones_is_named_by_its_position(
    triton_server: TritonServer, protocol: Any, noise: Images
) -> None:
    encoded = [encode(noise[0], "JPEG"), encode(noise[1], "JPEG")[:500], encode(noise[2], "JPEG")]
    with pytest.raises(InferenceServerException, match="image 1 of the request: the image is truncated or corrupt"):
        ask(triton_server, protocol, ENSEMBLE_NAME, encoded)


@pytest.mark.parametrize("shape", [(1, 64, 128, 3), (0, *IMAGE.dims), (MAX_BATCH_SIZE + 1, *IMAGE.dims)])
def test_a_tensor_of_another_shape_is_refused(triton_server: TritonServer, shape: Sequence[int]) -> None:
    with tritonclient.grpc.InferenceServerClient(triton_server.grpc_url.partition("://")[2]) as client:
        request = tritonclient.grpc.InferInput(IMAGE.name, list(shape), IMAGE.dtype)
        request.set_data_from_numpy(np.zeros(shape, np.uint8))
        with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
            client.infer(MODEL_NAME, [request], client_timeout=10, headers=triton_server.headers)


@pytest.mark.slow
def test_overload_is_refused_at_once_and_what_was_accepted_is_answered(
    triton_server: TritonServer, noise: Images, expected: Predict
) -> None:
    images = np.resize(noise, (MAX_BATCH_SIZE, *IMAGE.dims))
    refused_after_s: list[float] = []

    def ask_timed(_: int) -> Predictions | None:
        started = time.perf_counter()
        try:
            return predictions(ask(triton_server, tritonclient.grpc, MODEL_NAME, images))
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
            refused_after_s.append(time.perf_counter() - started)
            return None

    with ThreadPoolExecutor(16) as threads:
        answers = [answer for answer in threads.map(ask_timed, range(16)) if answer is not None]
    assert refused_after_s
    assert np.median(refused_after_s) < 2.0  # the images accepted take longer
    wanted = expected(images)
    assert answers
    for answer in answers:
        assert_same(answer, wanted)


def status_of(result: Future[Any]) -> str | None:
    error = result.exception()
    assert isinstance(error, InferenceServerException)
    return error.status()
