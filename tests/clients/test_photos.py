"""find_faces: whole photos in, a list of faces out, by every client and from the command line."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clients import AsyncFaceAttributesClient, DetectedFaces, FaceAttributesClient, InvalidImage, InvalidInput
from contract.spec import MAX_FACES
from serving.server import TritonServer
from tests.clients.test_programs import run
from tests.photos import centres, encoded, grid, photo_with_faces

SQUARES = [(40, 60, 260), (420, 90, 160)]


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photo_with_faces((640, 480), SQUARES)


@pytest.fixture(scope="module")
def photo_file(photo: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "two.png"
    photo.save(path)
    return path


def middles(faces: DetectedFaces) -> np.ndarray:
    return centres(np.array([face.box for face in faces]))


def test_faces_come_largest_first_with_places_and_attributes(url: str, photo_file: Path) -> None:
    with FaceAttributesClient(url, timeout_s=60) as client:
        faces = client.find_faces(photo_file)
    assert faces.in_photo == len(faces) == 2
    expected = [(left + side / 2, top + side / 2) for left, top, side in SQUARES]
    np.testing.assert_allclose(middles(faces), expected, atol=40)
    for face in faces:
        left, top, right, bottom = face.box
        assert all(left < x < right and top < y < bottom for x, y in face.landmarks)
        assert 0.6 <= face.score <= 1
        assert sum(face.emotions.values()) == pytest.approx(1, abs=1e-4)
        assert json.loads(json.dumps(face.to_dict()))["box"] == pytest.approx(face.box)


AS_GIVEN: dict[str, Callable[[Image.Image, Path], Any]] = {
    "path": lambda _, path: path,
    "bytes": lambda _, path: path.read_bytes(),
    "Pillow": lambda photo, _: photo,
    "array": lambda photo, _: np.asarray(photo),
    "alpha": lambda photo, _: photo.convert("RGBA"),
    "HEIC": lambda photo, _: encoded(photo, "HEIF", quality=95),
}


@pytest.mark.parametrize("kind", AS_GIVEN)
def test_a_photo_may_be_given_in_any_way(
    triton_server: TritonServer, photo: Image.Image, photo_file: Path, kind: str
) -> None:
    with FaceAttributesClient(triton_server.grpc_url, timeout_s=60) as client:
        wanted = client.find_faces(photo_file)
        found = client.find_faces(AS_GIVEN[kind](photo, photo_file))
    np.testing.assert_allclose(middles(found), middles(wanted), atol=2)


def test_limits_reach_the_server_and_senseless_ones_are_the_callers_fault(url: str, photo_file: Path) -> None:
    with FaceAttributesClient(url, timeout_s=60) as client:
        assert len(client.find_faces(photo_file, min_face_px=120)) == 1
        assert client.find_faces(photo_file, min_score=1.0) == []
        with pytest.raises(InvalidInput, match="min_score is 7") as caught:
            client.find_faces(photo_file, min_score=7)
        assert not isinstance(caught.value, InvalidImage)


def test_a_crowd_says_how_many_faces_it_has(triton_server: TritonServer) -> None:
    crowd = photo_with_faces((1000, 1000), grid((1000, 1000), 100, 96))
    with FaceAttributesClient(triton_server.grpc_url, timeout_s=60) as client:
        faces = client.find_faces(crowd, min_score=0.8)
    assert len(faces) == MAX_FACES
    assert faces.in_photo == 100


def test_in_a_batch_errors_stand_in_place_of_bad_photos(url: str, photo_file: Path) -> None:
    photos = [photo_file, b"no photo", "absent.jpg", photo_with_faces((200, 200), []), photo_file]
    with FaceAttributesClient(url, timeout_s=60) as client:
        results = client.find_faces_batch(photos)
        with pytest.raises(InvalidImage, match=r"^absent\.jpg: "):
            client.find_faces("absent.jpg")
        with pytest.raises(InvalidImage, match="not an image"):
            client.find_faces(b"no photo")
    assert [type(result) for result in results] == [
        DetectedFaces,
        InvalidImage,
        InvalidImage,
        DetectedFaces,
        DetectedFaces,
    ]
    assert [len(results[n]) for n in (0, 3, 4)] == [2, 0, 2]


def test_a_stream_keeps_its_order(triton_server: TritonServer) -> None:
    photos = [encoded(photo_with_faces((480, 360), grid((480, 360), count, 110)), "JPEG") for count in (3, 0, 1, 2)] * 4
    with FaceAttributesClient(triton_server.grpc_url, timeout_s=60) as client:
        results = list(client.find_faces_stream(photos, in_flight=6, min_score=0.7))
    assert [len(result) for result in results if not isinstance(result, InvalidImage)] == [3, 0, 1, 2] * 4


def test_the_asynchronous_client_finds_the_same(url: str, photo_file: Path) -> None:
    async def ask() -> tuple[Any, Any, Any]:
        async with AsyncFaceAttributesClient(url, timeout_s=60) as client:
            stream = client.find_faces_stream([photo_file, b"no photo"], in_flight=2)
            return (
                await client.find_faces(photo_file, min_score=0.7),
                await client.find_faces_batch([photo_file, "absent.jpg"]),
                [result async for result in stream],
            )

    with FaceAttributesClient(url, timeout_s=60) as client:
        wanted = client.find_faces(photo_file)
    faces, batch, streamed = asyncio.run(ask())
    for found in (faces, batch[0], streamed[0]):
        np.testing.assert_allclose(middles(found), middles(wanted), atol=0.01)
        assert [face.age for face in found] == pytest.approx([face.age for face in wanted], abs=1e-3)
    assert str(batch[1]).startswith("absent.jpg: ")
    assert isinstance(streamed[1], InvalidImage)


def test_the_program_prints_a_line_a_face(triton_server: TritonServer, photo_file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    photo_with_faces((300, 200), []).save(empty)
    options = ("--url", triton_server.grpc_url)
    table = run("predict", photo_file, empty, *options)
    assert table.returncode == 0, table.stderr
    lines = table.stdout.decode().splitlines()
    assert lines[0].split() == ["image", "years", "gender", "emotion", "box"]
    assert [line.split()[0] for line in lines[1:]] == [str(photo_file)] * 2
    assert table.stderr.decode().strip() == f"{empty}: no face found"

    rows = list(csv.DictReader(io.StringIO(run("predict", photo_file, "--csv", *options).stdout.decode())))
    objects = [json.loads(line) for line in run("predict", photo_file, "--json", *options).stdout.splitlines()]
    for row, values in zip(rows, objects, strict=True):
        assert [float(row[edge]) for edge in ("left", "top", "right", "bottom")] == pytest.approx(values["box"])
        assert float(row["age"]) == pytest.approx(values["age"], abs=1e-3)


@pytest.mark.parametrize("background", ["black", "white", "noise"])
@pytest.mark.parametrize("size", [(200, 150), (640, 480), (4000, 3000)])
def test_annotation_stands_out_from_any_background(
    triton_server: TritonServer, tmp_path: Path, background: str, size: tuple[int, int]
) -> None:
    side = size[1] // 2
    picture = photo_with_faces(size, [(size[0] // 4, size[1] // 4, side)])
    if background == "noise":
        surroundings = Image.effect_noise(size, 120).convert("RGB")
    else:
        surroundings = Image.new("RGB", size, background)
    face = picture.crop((size[0] // 4, size[1] // 4, size[0] // 4 + side, size[1] // 4 + side))
    surroundings.paste(face, (size[0] // 4, size[1] // 4))
    path = tmp_path / "photo.jpg"
    surroundings.save(path, quality=92)
    done = run("predict", path, "--annotate", tmp_path / "drawn", "--url", triton_server.grpc_url)
    assert done.returncode == 0, done.stderr
    with (
        Image.open(tmp_path / "drawn" / "photo.jpg.png") as drawn,
        FaceAttributesClient(triton_server.grpc_url, timeout_s=60) as client,
    ):
        [found] = client.find_faces(path)
        assert min(drawn.size) >= 384
        scale = drawn.width / size[0]
        left, _, _, bottom = (round(scale * edge) for edge in found.box)
        across = np.asarray(drawn.convert("L"))[bottom - 40, left - 12 : left + 12].astype(int)
    assert across.max() - across.min() > 200, "bright beside dark"
