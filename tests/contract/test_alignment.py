"""FFHQ's crop: the square is the formula's, the pixels are the photo's, what is outside is reflected."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from contract.alignment import align, ffhq_square
from tests.photos import red_is_blue_profile

SIDE = 128


def landmarks(centre: tuple[float, float], side: float, angle_deg: float = 0.0) -> np.ndarray:
    """Of a face that FFHQ would frame by the square of that centre and side, turned clockwise."""
    between_eyes = eyes_to_mouth = side / 4
    eyes_y = -0.1 * eyes_to_mouth
    points = np.array(
        [
            (-between_eyes / 2, eyes_y),
            (between_eyes / 2, eyes_y),
            (0, eyes_y + eyes_to_mouth / 2),
            (-between_eyes / 3, eyes_y + eyes_to_mouth),
            (between_eyes / 3, eyes_y + eyes_to_mouth),
        ]
    )
    turn = np.radians(angle_deg)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return points @ rotation + centre


def scene(width: int, height: int) -> Image.Image:
    """Smooth and different everywhere."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    channels = (200 * x + 20, 220 * y + 10, 110 + 100 * np.sin(9 * x + 4 * y))
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.int16) - np.asarray(b, np.int16))


def ffhq_reference(points: np.ndarray) -> np.ndarray:
    """The corners as FFHQ's own download_ffhq.py computes them: top left, bottom left, bottom right, top right."""
    right_eye, left_eye, _, right_corner, left_corner = points
    eye_avg = (right_eye + left_eye) * 0.5
    eye_to_eye = left_eye - right_eye
    mouth_avg = (right_corner + left_corner) * 0.5
    eye_to_mouth = mouth_avg - eye_avg
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eye_avg + eye_to_mouth * 0.1
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def test_the_square_is_ffhqs_own_for_any_face() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.uniform(0, 1000, 2) + rng.normal(0, 60, (5, 2))
        centre, right = ffhq_square(points)
        down = np.array([-right[1], right[0]])
        corners = np.stack([centre - right - down, centre - right + down, centre + right + down, centre + right - down])
        np.testing.assert_allclose(corners, ffhq_reference(points), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), 40.0)])
def test_landmarks_on_one_spot_still_give_a_square(points: np.ndarray) -> None:
    centre, right = ffhq_square(points)
    assert np.isfinite([centre, right]).all()
    assert np.hypot(*right) >= 1
    assert align(scene(64, 64), points).shape == (SIDE, SIDE, 3)


def test_a_face_framed_already_is_not_changed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    assert np.array_equal(align(Image.fromarray(pixels), landmarks((64, 64), 128)), pixels)


@pytest.mark.parametrize("side", [130, 200, 256, 300, 511, 700, 1500])
def test_a_larger_square_is_the_photos_own_reduced(side: int) -> None:
    photo = scene(1600, 1600)
    left, top = 40, 60
    wanted = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    found = align(photo, landmarks((left + side / 2, top + side / 2), side))
    assert difference(found, wanted).max() <= 2


def test_a_smaller_square_is_enlarged() -> None:
    photo = scene(200, 200)
    wanted = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(50, 60, 90, 100))
    assert difference(align(photo, landmarks((70, 80), 40)), wanted).max() <= 2


def test_stripes_finer_than_a_pixel_do_not_alias() -> None:
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    found = align(Image.fromarray(stripes), landmarks((1000, 1000), 1700, angle_deg=7))
    assert difference(found, np.full_like(found, 127)).max() <= 4


@pytest.mark.parametrize("angle_deg", [-40, 15, 90, 180])
def test_a_tilted_face_becomes_upright(angle_deg: float) -> None:
    photo = scene(900, 900)
    turned = photo.rotate(-angle_deg, Image.Resampling.BICUBIC)  # Pillow turns counterclockwise
    upright = align(photo, landmarks((450, 450), 300))
    assert difference(align(turned, landmarks((450, 450), 300, angle_deg)), upright).max() <= 3


def test_beyond_the_border_the_photo_is_reflected() -> None:
    photo = scene(128, 128)
    found = align(photo, landmarks((0, 64), 128))  # its left half is outside
    inside = np.asarray(photo)
    np.testing.assert_array_equal(found[:, 64:], inside[:, :64])
    np.testing.assert_array_equal(found[:, :64], inside[:, 64:0:-1])


@pytest.mark.parametrize("centre", [(-500.0, -500.0), (5000.0, 40.0), (64.0, 1e5)])
def test_a_square_outside_the_photo_is_still_an_image(centre: tuple[float, float]) -> None:
    assert align(scene(128, 96), landmarks(centre, 64)).shape == (SIDE, SIDE, 3)


def test_a_square_larger_than_the_photo_repeats_it() -> None:
    assert align(scene(40, 30), landmarks((20, 15), 4000)).shape == (SIDE, SIDE, 3)


def test_colours_are_brought_to_srgb_by_the_photos_profile() -> None:
    photo = scene(300, 300)
    plain = align(photo, landmarks((150, 150), 200, angle_deg=10))
    photo.info["icc_profile"] = red_is_blue_profile()
    found = align(photo, landmarks((150, 150), 200, angle_deg=10))
    assert difference(found, plain[:, :, ::-1]).max() <= 3
