"""photo_attributes: every face of a photo, asked for over the wire of the real server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from tritonclient.utils import InferenceServerException

from contract.alignment import align, ffhq_square
from contract.images import upright_photo
from contract.spec import ENCODED_IMAGE, IMAGE, MAX_FACES, MODEL_NAME, OUTPUTS, PHOTO_MODEL_NAME, PHOTO_OUTPUTS
from serving.server import TritonServer
from tests.photos import centres, encoded, grid, photo_with_faces

ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Found:
    faces_found: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    age: np.ndarray
    gender: np.ndarray
    emotion: np.ndarray


Ask = Callable[..., Found]


@pytest.fixture(scope="module", params=["grpc", "http"])
def ask(request: pytest.FixtureRequest, triton_server: TritonServer) -> Any:
    """Send one encoded photo, with parameters."""
    protocol = {"grpc": tritonclient.grpc, "http": tritonclient.http}[request.param]
    url = getattr(triton_server, f"{request.param}_url").partition("://")[2]
    key = triton_server.headers

    def send(data: bytes, **parameters: Any) -> Found:
        with protocol.InferenceServerClient(url) as client:
            tensor = protocol.InferInput(ENCODED_IMAGE.name, [1], ENCODED_IMAGE.dtype)
            tensor.set_data_from_numpy(np.array([data], object))
            result = client.infer(PHOTO_MODEL_NAME, [tensor], parameters=parameters or None, headers=key)
            return Found(**{output.name: result.as_numpy(output.name) for output in PHOTO_OUTPUTS})

    return send


@pytest.fixture(scope="module")
def grpc_ask(triton_server: TritonServer) -> Any:
    client = tritonclient.grpc.InferenceServerClient(triton_server.grpc_url.partition("://")[2])
    key = triton_server.headers

    def send(data: bytes, **parameters: Any) -> Found:
        tensor = tritonclient.grpc.InferInput(ENCODED_IMAGE.name, [1], ENCODED_IMAGE.dtype)
        tensor.set_data_from_numpy(np.array([data], object))
        result = client.infer(PHOTO_MODEL_NAME, [tensor], parameters=parameters or None, headers=key)
        return Found(**{output.name: result.as_numpy(output.name) for output in PHOTO_OUTPUTS})

    yield send
    client.close()


def assert_faces_at(found: Found, squares: list[tuple[int, int, int]]) -> None:
    """Each square holds exactly one face, about where its middle is."""
    middles = np.array([(left + side / 2, top + side / 2) for left, top, side in squares]).reshape(-1, 2)
    assert found.faces_found.tolist() == [len(squares)]
    assert len(found.boxes) == len(squares)
    for middle, (_, _, side) in zip(middles, squares, strict=True):
        distances = np.hypot(*(centres(found.boxes) - middle).T)
        assert (distances < side / 3).sum() == 1


@pytest.mark.parametrize(("count", "side"), [(0, 100), (1, 240), (16, 120)])
def test_every_face_is_found_and_has_the_attributes_of_its_crop(
    ask: Ask, repository: Path, count: int, side: int
) -> None:
    squares = grid((640, 480), count, side)
    data = encoded(photo_with_faces((640, 480), squares))
    found = ask(data)
    assert_faces_at(found, squares)
    assert [getattr(found, tensor.name).shape for tensor in PHOTO_OUTPUTS[1:]] == [
        (count, *tensor.dims[1:]) for tensor in PHOTO_OUTPUTS[1:]
    ]
    if count:
        model = repository / MODEL_NAME / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        crops = np.stack([align(upright_photo(data), landmarks) for landmarks in found.landmarks])
        wanted = session.run([tensor.name for tensor in OUTPUTS], {IMAGE.name: crops})
        for tensor, values in zip(OUTPUTS, wanted, strict=True):
            np.testing.assert_allclose(getattr(found, tensor.name), values, rtol=1e-3, atol=1e-3)


def test_of_a_crowd_the_largest_faces_are_answered_and_the_others_counted(grpc_ask: Ask) -> None:
    squares = [(left, top, 60 + 40 * (n % 2)) for n, (left, top, _) in enumerate(grid((2000, 1000), 200, 100))]
    found = grpc_ask(encoded(photo_with_faces((2000, 1000), squares)), min_score=0.8)
    assert found.faces_found.tolist() == [200]
    assert {len(getattr(found, tensor.name)) for tensor in PHOTO_OUTPUTS[1:]} == {MAX_FACES}
    assert np.all(np.diff((found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1)) <= 0)
    columns = centres(found.boxes)[:, 0] // 100
    assert np.all(columns % 2 == 1), "only the larger kind"


UNTURNED = {  # how the upright picture is stored under each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", UNTURNED)
def test_a_photo_is_turned_before_faces_are_looked_for(grpc_ask: Ask, orientation: int) -> None:
    squares = [(60, 40, 200), (380, 250, 150)]
    upright = photo_with_faces((640, 480), squares)
    way = UNTURNED[orientation]
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    found = grpc_ask(encoded(upright if way is None else upright.transpose(way), exif=exif))
    np.testing.assert_allclose(found.boxes, grpc_ask(encoded(upright)).boxes, atol=0.01)
    assert_faces_at(found, squares)


def test_a_face_that_the_border_cuts_is_found_and_cropped(grpc_ask: Ask) -> None:
    squares = [(-40, 100, 240), (430, 250, 240)]  # a sixth beyond the left border, and an eighth beyond the right
    found = grpc_ask(encoded(photo_with_faces((640, 480), squares)))
    assert len(found.boxes) == 2
    for left, top, side in squares:
        ours = int(np.argmin(np.abs(found.landmarks[:, 2, 0] - left - side / 2)))
        centre, right = ffhq_square(found.landmarks[ours])
        np.testing.assert_allclose(centre, (left + side / 2, top + side / 2), atol=0.1 * side)
        assert np.hypot(*right) == pytest.approx(side / 2, rel=0.25)


@pytest.mark.parametrize("size", [(640, 480), (1280, 960), (4000, 3000)])
def test_faces_of_a_fortieth_of_a_large_photo_are_found(grpc_ask: Ask, size: tuple[int, int]) -> None:
    """Of 32 pixels where the photo has up to 1,280; the square around such a face has 48."""
    side = round(48 * max(size[0] / 1280, 1))
    squares = [(size[0] // 4 * n + 7, size[1] // 3 * n + 11, side) for n in range(3)]
    found = grpc_ask(encoded(photo_with_faces(size, squares), "JPEG", quality=92))
    assert_faces_at(found, squares)
    assert (found.boxes[:, 3] - found.boxes[:, 1]).max() <= 40 * max(size[0] / 1280, 1)


def test_a_face_that_fills_a_large_photo_is_found(grpc_ask: Ask) -> None:
    squares = [(0, 0, 2400)]
    assert_faces_at(grpc_ask(encoded(photo_with_faces((2400, 2400), squares), "JPEG")), squares)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "AVIF", "HEIF"])
def test_formats_of_cameras_are_searched_alike(grpc_ask: Ask, format_: str) -> None:
    squares = [(60, 40, 200), (380, 250, 150)]
    assert_faces_at(grpc_ask(encoded(photo_with_faces((640, 480), squares), format_, quality=90)), squares)


@pytest.mark.parametrize(("mode", "format_"), [("L", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")])
def test_modes_are_searched_alike(grpc_ask: Ask, mode: str, format_: str) -> None:
    squares = [(60, 40, 200), (380, 250, 150)]
    assert_faces_at(grpc_ask(encoded(photo_with_faces((640, 480), squares).convert(mode), format_)), squares)


@pytest.mark.slow
def test_a_photo_of_fifty_megapixels_is_answered(grpc_ask: Ask) -> None:
    squares = [(500, 700, 900), (6000, 1000, 2500)]
    data = encoded(photo_with_faces((10_000, 5_000), squares), "JPEG", quality=85)
    assert_faces_at(grpc_ask(data), squares)
    with pytest.raises(InferenceServerException, match="more than 50,000,000 pixels"):
        grpc_ask(encoded(Image.new("RGB", (10_001, 5_000)), "JPEG"))


def test_a_request_says_how_certain_and_how_large_faces_must_be(ask: Ask) -> None:
    squares = [(10, 10, 300), (400, 60, 100)]
    data = encoded(photo_with_faces((640, 480), squares))
    assert_faces_at(ask(data, min_face_px=20), squares)
    assert_faces_at(ask(data, min_face_px=100), squares[:1])
    assert ask(data, min_score=1.0).faces_found.tolist() == [0]
    assert ask(data, min_score=0.5).scores.min() >= 0.5


@pytest.mark.parametrize("parameters", [{"min_score": 0.1}, {"min_score": "much"}, {"min_face_px": 0}])
def test_a_parameter_that_makes_no_sense_is_named(grpc_ask: Ask, parameters: dict[str, Any]) -> None:
    with pytest.raises(InferenceServerException, match=f"parameter {next(iter(parameters))} is .* must be a number"):
        grpc_ask(encoded(photo_with_faces((64, 64), [])), **parameters)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"no picture", "not an image"),
        (encoded(Image.new("RGB", (300, 300)), "JPEG")[:700], "truncated"),
    ],
)
def test_a_bad_photo_is_refused(ask: Ask, data: bytes, message: str) -> None:
    with pytest.raises(InferenceServerException, match=message):
        ask(data)


def test_a_bad_photo_is_the_fault_of_its_own_request_alone(grpc_ask: Ask) -> None:
    squares = grid((640, 480), 3, 160)
    good, bad = encoded(photo_with_faces((640, 480), squares), "JPEG", quality=90), b"no picture at all"
    with ThreadPoolExecutor(8) as threads:
        pending = [threads.submit(grpc_ask, bad if n % 3 == 1 else good) for n in range(24)]
    for n, future in enumerate(pending):
        if n % 3 == 1:
            error = future.exception()
            assert isinstance(error, InferenceServerException)
            assert error.status() == "StatusCode.INVALID_ARGUMENT"
        else:
            assert_faces_at(future.result(), squares)


@pytest.mark.slow
def test_overload_is_refused_at_once_and_what_was_accepted_is_answered(grpc_ask: Ask) -> None:
    squares = grid((1280, 960), 4, 400)
    data = encoded(photo_with_faces((1280, 960), squares), "JPEG")
    refused_after_s: list[float] = []

    def timed(_: int) -> Found | None:
        started = time.perf_counter()
        try:
            return grpc_ask(data)
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
            refused_after_s.append(time.perf_counter() - started)
            return None

    with ThreadPoolExecutor(160) as threads:
        answers = [answer for answer in threads.map(timed, range(160)) if answer is not None]
    assert len(answers) >= 64
    assert refused_after_s
    assert np.median(refused_after_s) < 2.0  # the photos accepted take longer
    for answer in answers:
        assert_faces_at(answer, squares)


def test_realigned_ffhq_thumbnails_move_by_less_than_a_fiftieth_of_their_side(grpc_ask: Ask) -> None:
    """On the real pictures, where they are: FFHQ_THUMBNAILS names the folder of 00000.png and so on."""
    folder = Path(os.environ.get("FFHQ_THUMBNAILS", "data/ffhq/thumbnails128x128"))
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".png", ".jpg"))[-100:]
    if not paths:
        pytest.skip(f"{folder} holds no FFHQ thumbnails; name a folder that does in FFHQ_THUMBNAILS")
    moved = []
    for path in paths:
        photo = Image.open(path).convert("RGB").resize((512, 512), Image.Resampling.LANCZOS)
        found = grpc_ask(encoded(photo))
        centre, _ = ffhq_square(found.landmarks[0])
        moved.append(np.hypot(*(centre / 512 - 0.5)))
    assert np.median(moved) < 0.02
