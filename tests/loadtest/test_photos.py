"""The measurement on whole photos: what is placed is found again, and what is found is given to the right face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients import DetectedFace, FaceAttributesClient
from contract.images import upright_photo
from contract.samples import load_samples
from contract.spec import EMOTIONS, GENDERS
from loadtest.photos import PHOTO_SIZE, PhotosConfig, Placed, _assign, accuracy, place
from serving.server import TritonServer
from tests.clients.material import make_dataset
from tests.photos import drawn_face


def face_at(x: float, y: float, side: float = 50.0) -> DetectedFace:
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    emotions = dict.fromkeys(EMOTIONS, 1 / 8)
    return DetectedFace(30.0, GENDERS[0], 0.9, EMOTIONS[0], emotions, box=box, score=0.9, landmarks=((x, y),) * 5)


@pytest.mark.parametrize("side_px", [32, 128, 640])
def test_every_face_is_placed_once_where_it_is_said_to_be(side_px: int) -> None:
    images = np.stack([np.full((128, 128, 3), 10 * n, np.uint8) for n in range(14)])
    placed = list(place(images, side_px, np.random.default_rng(0)))
    assert sorted(row for photo in placed for row in photo.rows) == list(range(14))
    for photo in placed:
        picture = upright_photo(photo.encoded)
        assert picture.size == PHOTO_SIZE
        for row, (x, y) in zip(photo.rows, photo.middles, strict=True):
            assert picture.getpixel((int(x), int(y))) == pytest.approx((10 * row,) * 3, abs=6)


def test_found_faces_are_given_to_the_placed_one_and_strangers_are_counted() -> None:
    photo = Placed(b"", [7, 8], np.array([[100, 100], [400, 300]], np.float32))
    found: dict[int, DetectedFace] = {}
    # One near each placed face, a neighbour in the second's own picture, and one where nothing was placed.
    faces = [face_at(104, 97), face_at(395, 310), face_at(450, 300), face_at(900, 700)]
    assert _assign(photo, faces, 100, found) == 1
    assert found == {7: faces[0], 8: faces[1]}


def test_drawn_faces_are_found_and_scored_beside_their_own_crop(triton_server: TritonServer, tmp_path: Path) -> None:
    images = np.stack([np.asarray(drawn_face(n)) for n in range(12)])
    samples = load_samples(make_dataset(tmp_path, images))
    config = PhotosConfig(Path("unused.onnx"), (), faces=12)
    with FaceAttributesClient(triton_server.grpc_url, timeout_s=120) as client:
        rows = {row[1]: row for row in accuracy(client, "drawn", samples, config)}
    assert rows["128"][:3] == ["drawn", "128", "100.0"]
    assert float(rows["32"][2]) < 100
    for cell in rows["128"][3:-1]:
        given, found = map(float, cell.split(" -> "))
        assert np.isfinite([given, found]).all()
