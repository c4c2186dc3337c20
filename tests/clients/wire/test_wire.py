"""What arrives may be anything; what comes out is a reply or an error of this package."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from clients import (
    AccessDenied,
    ContractMismatch,
    DeadlineExceeded,
    FaceAttributes,
    FaceAttributesClient,
    FaceAttributesError,
    InvalidImage,
    InvalidInput,
    InvalidReply,
    ModelNotFound,
    ServerError,
    ServerUnavailable,
)
from clients.calls import INFER, MODEL_METADATA, READY, STATISTICS, Call, Operation, Reply, infer_call
from clients.messages import check_contract, predictions_of
from clients.wire import grpc, http
from clients.wire.endpoint import Endpoint
from contract.spec import IMAGE, MODEL_NAME, OUTPUTS, TensorSpec

CALLS = [Call(INFER), Call(MODEL_METADATA), Call(STATISTICS)]
URL = "http://host:8000"
ENDPOINT = Endpoint.at(URL, timeout_s=1)


class Memory:
    """A transport that answers from memory."""

    def __init__(self, replies: dict[Operation, Reply]) -> None:
        self.replies = replies

    def send(self, call: Call) -> Reply:
        return self.replies[call.operation]

    def close(self) -> None: ...


def metadata(*, image: TensorSpec = IMAGE, outputs: tuple[TensorSpec, ...] = OUTPUTS) -> Reply:
    """As gRPC's JSON mapping gives it: numbers of 64 bits are strings."""
    wire = [{"name": t.name, "datatype": t.dtype, "shape": ["-1", *map(str, t.dims)]} for t in (image, *outputs)]
    return {"name": MODEL_NAME, "inputs": wire[:1], "outputs": wire[1:]}


def outputs(count: int = 1, **changes: Any) -> Reply:
    arrays = {t.name: np.full((count, *t.dims), 1 / 8, np.float32) for t in OUTPUTS}
    return {**arrays, **changes}


@given(
    call=st.sampled_from(CALLS),
    status=st.one_of(st.just(200), st.integers(100, 599)),
    header=st.one_of(st.none(), st.integers(-5, 500).map(str), st.text(max_size=5)),
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["outputs", "name", "age", "shape", "datatype", "error"]), inner, max_size=3
                )
            ),
            max_leaves=10,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
@example(Call(INFER), 200, None, b'{"outputs": [{"name": "age", "datatype": "FP32", "shape": [1], "data": [[]]}]}')
@example(Call(INFER), 200, None, b'{"outputs": [{"name": "age", "datatype": "XYZ", "shape": [1], "data": [1]}]}')
def test_an_http_reply_of_any_bytes_is_decoded_or_an_error_of_ours(
    call: Call, status: int, header: str | None, body: bytes
) -> None:
    headers = {} if header is None else {"Inference-Header-Content-Length": header}
    with suppress(FaceAttributesError):
        assert isinstance(http.decode(call, status, headers, body, url=URL), dict)


@given(
    name=st.sampled_from([t.name for t in OUTPUTS]),
    datatype=st.sampled_from(["FP32", "BYTES", "UINT8", "", "junk"]),
    shape=st.lists(st.integers(-2, 9), max_size=3),
    raw=st.lists(st.binary(max_size=64), max_size=2),
)
def test_a_grpc_reply_of_any_tensors_is_decoded_or_an_error_of_ours(
    name: str, datatype: str, shape: list[int], raw: list[bytes]
) -> None:
    message = service_pb2.ModelInferResponse(raw_output_contents=raw)
    message.outputs.add(name=name, datatype=datatype, shape=shape)
    with suppress(InvalidReply):
        assert isinstance(grpc.decode(Call(INFER), message, url=URL), dict)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            t.name: st.one_of(
                st.none(),
                st.text(max_size=3),
                st.lists(st.integers(0, 10), max_size=3).map(lambda shape: np.zeros(shape, np.float32)),
            )
            for t in OUTPUTS
        },
    )
)
def test_outputs_of_any_shape_are_predictions_of_the_right_number_or_an_error_of_ours(arrays: dict[str, Any]) -> None:
    with suppress(InvalidReply):
        assert len(predictions_of(arrays, count=2, url=URL)) == 2


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidInput),
        (401, AccessDenied),
        (403, AccessDenied),
        (404, ModelNotFound),
        (500, ServerError),
        (503, ServerUnavailable),
        (504, DeadlineExceeded),
        (302, ServerError),
    ],
)
def test_each_http_status_is_the_error_it_stands_for(status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="the server's words"):
        http.decode(Call(INFER), status, {}, b'{"error": "the server\'s words"}', url=URL)


def test_readiness_is_told_by_the_status_alone() -> None:
    assert http.decode(Call(READY), 200, {}, b"", url=URL) == {"ready": True}
    assert http.decode(Call(READY), 400, {}, b"", url=URL) == {"ready": False}


def test_names_cannot_leave_their_place_in_the_path() -> None:
    request = http.encode(Call(MODEL_METADATA, {"name": "../../v2/repository/index?x"}), ENDPOINT)
    assert request.path == "v2/models/..%2F..%2Fv2%2Frepository%2Findex%3Fx"


def test_metadata_as_the_contract_has_it_passes() -> None:
    check_contract(metadata(), MODEL_NAME, url=URL)
    check_contract(metadata(outputs=OUTPUTS[::-1]), MODEL_NAME, url=URL)


@pytest.mark.parametrize(
    "found",
    [
        metadata(image=TensorSpec("input", "FP32", (3, 224, 224))),
        metadata(outputs=OUTPUTS[:2]),
        metadata(outputs=(*OUTPUTS[:2], TensorSpec("emotion", "FP32", (7,)))),
    ],
    ids=["input", "missing", "classes"],
)
def test_another_contract_is_refused_naming_both_sides(found: Reply) -> None:
    transport = Memory({MODEL_METADATA: found, INFER: outputs()})
    client = FaceAttributesClient(URL, transport=transport)
    with pytest.raises(ContractMismatch) as caught:
        client.infer(np.zeros((1, *IMAGE.dims), np.uint8))
    for tensor in (*found["inputs"], *found["outputs"]):
        assert f"{tensor['name']} {tensor['datatype']} [{', '.join(tensor['shape'][1:])}]" in str(caught.value)
    assert all(str(tensor) in str(caught.value) for tensor in (IMAGE, *OUTPUTS))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (outputs(2), "sent 1 images, got predictions of 2"),
        (outputs(age=np.full((1, 1), np.nan)), "not finite"),
        (outputs(emotion=np.zeros((1, 7))), "outputs of the contract"),
        (outputs(emotion=np.zeros((2, 4))), "outputs of the contract"),
        (outputs(age=np.zeros(1)), "outputs of the contract"),
        (outputs(age=np.full((1, 1), 1e9)), "not possible"),
        (outputs(gender=np.full((1, 1), 1.5)), "not possible"),
        (outputs(emotion=np.full((1, 8), -0.2)), "not possible"),
        ({}, "outputs of the contract"),
    ],
    ids=["count", "nan", "shape", "sum of shape", "flat", "age", "gender", "emotion", "empty"],
)
def test_a_reply_that_breaks_the_contract_is_never_handed_out(reply: Reply, reason: str) -> None:
    client = FaceAttributesClient(URL, transport=Memory({MODEL_METADATA: metadata(), INFER: reply}))
    with pytest.raises(InvalidReply, match=reason):
        client.infer(np.zeros((1, *IMAGE.dims), np.uint8))


@given(
    st.one_of(
        st.binary(max_size=300),
        st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"BM"]).flatmap(
            lambda magic: st.binary(max_size=300).map(lambda rest: magic + rest)
        ),
        st.text(max_size=20),
        st.none() | st.integers() | st.lists(st.integers(), max_size=3),
        st.tuples(
            st.sampled_from([np.uint8, np.float32, np.int16, np.bool_, np.object_]),
            st.lists(st.integers(0, 40), max_size=4),
        ).map(lambda array: np.zeros(array[1], array[0])),
    )
)
def test_any_object_given_as_an_image_is_a_face_or_an_invalid_image(image: Any) -> None:
    client = FaceAttributesClient(URL, transport=Memory({MODEL_METADATA: metadata(), INFER: outputs()}))
    [result] = client.predict_batch([image])
    assert isinstance(result, FaceAttributes | InvalidImage)


def test_a_tensor_travels_unchanged_over_both() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *IMAGE.dims), np.uint8)
    call = infer_call(MODEL_NAME, images)
    message = grpc.encode(call, ENDPOINT)
    assert message.raw_input_contents[0] == images.tobytes()
    request = http.encode(call, ENDPOINT)
    assert request.body is not None
    assert request.body[int(request.headers["Inference-Header-Content-Length"]) :] == images.tobytes()
