from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clients import ClientClosed, FaceAttributes, FaceAttributesClient, InvalidImage, InvalidInput
from clients.calls import Call, Reply
from contract.spec import EMOTIONS, GENDERS, MAX_BATCH_SIZE, MODEL_NAME, Images, Predictions


def assert_equal(found: Predictions, expected: Predictions) -> None:
    """To the last digits, which depend on the batch the server happens to make."""
    np.testing.assert_allclose(found.age, expected.age, atol=1e-4)
    np.testing.assert_allclose(found.gender, expected.gender, atol=1e-5)
    np.testing.assert_allclose(found.emotion, expected.emotion, atol=1e-5)


@pytest.fixture
def client(url: str) -> Iterator[FaceAttributesClient]:
    with FaceAttributesClient(url, timeout_s=60) as client:
        yield client


def test_a_face_has_typed_attributes(client: FaceAttributesClient, files: list[Path]) -> None:
    face = client.predict(files[0])
    assert face.gender in GENDERS
    assert 0.5 <= face.gender_probability <= 1
    assert tuple(face.emotions) == EMOTIONS
    assert sum(face.emotions.values()) == pytest.approx(1, abs=1e-5)
    assert face.emotion_probability == max(face.emotions.values())


def test_a_face_as_dict_has_plain_types(client: FaceAttributesClient, files: list[Path]) -> None:
    fields = client.predict(files[0]).to_dict()
    assert {type(value) for value in (*fields.values(), *fields["emotions"].values())} == {float, str, dict}


def test_every_form_of_an_image_gives_the_same_face(client: FaceAttributesClient, files: list[Path]) -> None:
    path = files[0]
    forms = [path, str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path))]
    ages = [client.predict(form).age for form in forms]
    assert ages == pytest.approx([ages[0]] * len(forms), abs=1e-4)


def test_encoded_and_tensor_give_the_same_answers(url: str, files: list[Path]) -> None:
    with (
        FaceAttributesClient(url, timeout_s=60) as tensor,
        FaceAttributesClient(url, wire="encoded", timeout_s=60) as encoded,
    ):
        decoded_here, decoded_there = tensor.predict_batch(files), encoded.predict_batch(files)
    for here, there in zip(decoded_here, decoded_there, strict=True):
        assert isinstance(here, FaceAttributes)
        assert isinstance(there, FaceAttributes)
        assert there.age == pytest.approx(here.age, abs=1e-4)
        assert list(there.emotions.values()) == pytest.approx(list(here.emotions.values()), abs=1e-5)


def test_encoded_takes_every_form_too(url: str, files: list[Path]) -> None:
    picture = Image.open(files[0])
    with FaceAttributesClient(url, wire="encoded", timeout_s=60) as client:
        ages = [client.predict(form).age for form in (files[0], files[0].read_bytes(), picture, np.asarray(picture))]
    assert ages == pytest.approx([ages[0]] * 4, abs=1e-4)


@pytest.mark.parametrize("wire", ["tensor", "encoded"])
def test_a_bad_image_is_reported_in_its_place_and_the_others_are_answered(
    url: str, files: list[Path], tmp_path: Path, wire: Any
) -> None:
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(files[1].read_bytes()[:200])
    with FaceAttributesClient(url, wire=wire, timeout_s=60) as client:
        alone = client.predict(files[0]), client.predict(files[2])
        results = client.predict_batch([files[0], truncated, b"", tmp_path / "absent.png", files[2]])
    assert [type(result) for result in results] == [
        FaceAttributes,
        InvalidImage,
        InvalidImage,
        InvalidImage,
        FaceAttributes,
    ]
    assert (results[0].age, results[4].age) == pytest.approx([face.age for face in alone], abs=1e-4)
    assert str(truncated) in str(results[1])
    assert "truncated" in str(results[1]).removeprefix(str(truncated))
    assert "0 bytes" in str(results[2])
    assert "No such file" in str(results[3])


def test_predict_raises_for_a_bad_image(client: FaceAttributesClient) -> None:
    with pytest.raises(InvalidImage, match="not an image"):
        client.predict(b"GIF?")


def test_more_images_than_a_batch_holds_are_split_and_joined_in_order(
    client: FaceAttributesClient, pictures: Images
) -> None:
    assert len(pictures) > MAX_BATCH_SIZE
    predictions = client.infer(pictures)
    some = [0, 1, MAX_BATCH_SIZE - 1, MAX_BATCH_SIZE, len(pictures) - 1]
    assert_equal(
        Predictions(predictions.age[some], predictions.gender[some], predictions.emotion[some]),
        Predictions.concatenate(client.infer(pictures[index : index + 1]) for index in some),
    )


def test_a_stream_answers_in_order(client: FaceAttributesClient, pictures: Images) -> None:
    batches = [pictures[:1], pictures[1:6], pictures[6:7], pictures[7:8], pictures[8:20]]
    streamed = Predictions.concatenate(client.infer_stream(batches, in_flight=3))
    assert_equal(streamed, client.infer(pictures[:20]))


def test_a_stream_reads_no_further_ahead_than_twice_what_is_in_flight(
    client: FaceAttributesClient, pictures: Images
) -> None:
    taken = 0

    def endless() -> Iterator[Images]:
        nonlocal taken
        while True:
            taken += 1
            yield pictures[taken % 60 :][:1]

    stream = client.infer_stream(endless(), in_flight=2)
    for _ in range(5):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert taken <= 5 + 2 * 2


def test_a_stream_of_nothing_in_flight_is_refused(client: FaceAttributesClient, files: list[Path]) -> None:
    with pytest.raises(InvalidInput, match="in_flight"):
        list(client.predict_stream(files, in_flight=0))


def test_a_stream_of_images_reports_bad_ones_in_their_place(client: FaceAttributesClient, files: list[Path]) -> None:
    results = list(client.predict_stream([files[0], b"junk", files[1]], in_flight=2))
    assert [type(result) for result in results] == [FaceAttributes, InvalidImage, FaceAttributes]


def test_threads_share_a_client(client: FaceAttributesClient, pictures: Images) -> None:
    expected = client.infer(pictures[:24])
    with ThreadPoolExecutor(8) as pool:
        found = Predictions.concatenate(pool.map(client.infer, (pictures[i : i + 1] for i in range(24))))
    assert_equal(found, expected)


def test_compressed_requests_give_the_same_answers(url: str, client: FaceAttributesClient, pictures: Images) -> None:
    with FaceAttributesClient(url, compress=True, timeout_s=60) as compressed:
        assert_equal(compressed.infer(pictures[:3]), client.infer(pictures[:3]))


def test_the_configuration_in_force_reads_the_same_over_both(triton_server: Any) -> None:
    for url in (triton_server.grpc_url, triton_server.http_url):
        with FaceAttributesClient(url) as client:
            config = client.model_config(MODEL_NAME)
        assert (config["name"], config["max_batch_size"]) == (MODEL_NAME, MAX_BATCH_SIZE)


def test_a_closed_client_says_so(url: str, pictures: Images) -> None:
    client = FaceAttributesClient(url)
    client.close()
    client.close()
    with pytest.raises(ClientClosed, match="is closed"):
        client.infer(pictures[:1])


class Refusing:
    """A transport that must not be used."""

    def send(self, call: Call) -> Reply:
        pytest.fail(f"sent {call.operation.rpc}")

    def close(self) -> None: ...


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 224, 224, 3), np.uint8),
        np.zeros((1, 3, 128, 128), np.uint8),
        np.zeros((128, 128, 3), np.uint8),
        np.zeros((1, 128, 128, 3), np.float32),
        np.zeros((1, 128, 128, 3), np.int64),
        np.zeros((0, 128, 128, 3), np.uint8),
        [[1, 2, 3]],
    ],
    ids=lambda images: f"{np.asarray(images).dtype}{np.asarray(images).shape}",
)
def test_wrong_arrays_are_refused_before_anything_is_sent(images: Any) -> None:
    with pytest.raises(InvalidInput, match=r"expects images uint8 \[N, 128, 128, 3\]|no image"):
        FaceAttributesClient("grpc://127.0.0.1", transport=Refusing()).infer(images)


@pytest.mark.parametrize(
    "image", [np.zeros((64, 64, 3)), np.zeros((64, 64), np.uint8), np.zeros((0, 5, 3), np.uint8), 7, None]
)
def test_wrong_images_are_refused_with_the_remedy(image: Any) -> None:
    with pytest.raises(InvalidImage, match=r"Scale floats by 255|an image is a path, bytes"):
        FaceAttributesClient("grpc://127.0.0.1", transport=Refusing()).predict(image)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8001", "ftp://127.0.0.1", "grpc://", "grpc://host:port", "http://host/path", "http://[::1", ""]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="scheme"):
        FaceAttributesClient(url)


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"wire": "jpeg"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        FaceAttributesClient("grpc://127.0.0.1", **options)


def test_ports_default_to_tritons_own() -> None:
    assert FaceAttributesClient("grpc://localhost").url == "grpc://localhost:8001"
    assert FaceAttributesClient("http://[::1]").url == "http://[::1]:8000"


def test_a_request_in_flight_when_the_client_is_closed_ends_with_an_error_of_ours(url: str, pictures: Images) -> None:
    client = FaceAttributesClient(url, timeout_s=60)
    client.infer(pictures[:1])
    stop = threading.Timer(0.05, client.close)
    stop.start()
    with pytest.raises(ClientClosed):
        list(client.infer_stream([pictures[:8]] * 100, in_flight=1))
    stop.join()
