import colorsys

import pytest
import torch

from training.batches.augmentation import DRAWS, Augmentation
from training.network.preprocess import resize

OFF = Augmentation(0, 0, 0, 0, 0, 0)


def changed_by(augmentation: Augmentation, faces: torch.Tensor) -> torch.Tensor:
    return augmentation(faces, torch.rand(len(faces), DRAWS), side_px=faces.shape[2])


@pytest.fixture
def faces() -> torch.Tensor:
    torch.manual_seed(0)
    smooth = torch.rand(16, 3, 8, 8)
    return torch.nn.functional.interpolate(smooth, (128, 128), mode="bilinear").mul(0.5).add(0.25)


def test_everything_off_changes_nothing(faces: torch.Tensor) -> None:
    assert torch.allclose(changed_by(OFF, faces), faces, atol=1e-5)


def test_every_face_has_parameters_of_its_own(faces: torch.Tensor) -> None:
    same = faces[:1].expand(16, -1, -1, -1)
    changed = changed_by(Augmentation(), same)
    distances = torch.cdist(changed.flatten(1), changed.flatten(1)) + torch.eye(16) * 1e9
    assert distances.min() > 1


def test_what_happens_to_a_face_depends_on_its_own_draws_alone(faces: torch.Tensor) -> None:
    draws = torch.rand(16, DRAWS)
    whole = Augmentation(zoom=0.2, shift=0.1, grey_probability=0.3, blur_probability=0.5)(faces, draws, side_px=96)
    part = Augmentation(zoom=0.2, shift=0.1, grey_probability=0.3, blur_probability=0.5)(
        faces[8:], draws[8:], side_px=96
    )
    assert torch.allclose(whole[8:], part, atol=1e-5)


@pytest.mark.parametrize("side_px", [64, 96, 128])
def test_it_shrinks_as_a_face_that_is_not_augmented_is_shrunk(faces: torch.Tensor, side_px: int) -> None:
    shrunk = OFF(faces, torch.rand(16, DRAWS), side_px=side_px)
    assert torch.allclose(shrunk, resize(faces, side_px), atol=1e-5)


def test_flip_is_a_mirror(faces: torch.Tensor) -> None:
    assert torch.allclose(changed_by(Augmentation(1, 0, 0, 0, 0, 0), faces), faces.flip(3), atol=1e-5)


def test_rotation_turns_by_at_most_its_limit() -> None:
    mark = torch.zeros(200, 3, 128, 128)
    mark[:, :, 60:68, 110:118] = 1  # to the right of the centre
    turned = changed_by(Augmentation(0, 10, 0, 0, 0, 0), mark)[:, 0]
    y, x = torch.meshgrid(torch.arange(128) - 63.5, torch.arange(128) - 63.5, indexing="ij")
    weight = turned.sum((1, 2))
    angles = torch.rad2deg(torch.atan2((turned * y).sum((1, 2)) / weight, (turned * x).sum((1, 2)) / weight))
    assert angles.abs().max() <= 10.1
    assert angles.max() > 8
    assert angles.min() < -8


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation"])
def test_factors_stay_within_their_limit(faces: torch.Tensor, field: str) -> None:
    torch.manual_seed(1)
    grey = torch.tensor([0.299, 0.587, 0.114])
    changed = changed_by(Augmentation(**{**OFF.__dict__, field: 0.2}), faces)
    if field == "brightness":
        ratio = changed.mean((1, 2, 3)) / faces.mean((1, 2, 3))
    elif field == "contrast":
        ratio = changed.flatten(1).std(1) / faces.flatten(1).std(1)
    else:
        luma = (faces * grey.view(1, 3, 1, 1)).sum(1, keepdim=True)
        assert torch.allclose((changed * grey.view(1, 3, 1, 1)).sum(1, keepdim=True), luma, atol=1e-4)
        ratio = (changed - luma).flatten(1).norm(dim=1) / (faces - luma).flatten(1).norm(dim=1)
    assert 0.79 < ratio.min() < 0.95
    assert 1.05 < ratio.max() < 1.21


def test_hue_turns_colours_and_keeps_greys() -> None:
    torch.manual_seed(0)
    red = torch.zeros(64, 3, 4, 4)
    red[:, 0] = 0.6
    red[:, 1:] = 0.3
    hues = [
        colorsys.rgb_to_hsv(*pixel)[0]
        for pixel in changed_by(Augmentation(0, 0, 0, 0, 0, 0.1), red)[:, :, 0, 0].tolist()
    ]
    away = [min(hue, 1 - hue) for hue in hues]
    assert 0.05 < max(away) < 0.15
    grey = torch.full((8, 3, 4, 4), 0.5)
    assert torch.allclose(changed_by(Augmentation(0, 0, 0, 0, 0, 0.1), grey), grey, atol=1e-3)


def test_zoom_and_shift_stay_within_their_limits() -> None:
    torch.manual_seed(0)
    mark = torch.zeros(300, 3, 128, 128)
    mark[:, :, 44:84, 44:84] = 1
    area = changed_by(Augmentation(0, 0, 0, 0, 0, 0, zoom=0.25), mark)[:, 0].sum((1, 2)).sqrt() / 40
    assert 1 / 1.26 < area.min() < 0.85
    assert 1.18 < area.max() < 1.26
    moved = changed_by(Augmentation(0, 0, 0, 0, 0, 0, shift=0.1), mark)[:, 0]
    centre = (moved.sum(1) * (torch.arange(128) - 63.5)).sum(1) / moved.sum((1, 2))
    assert 11 < centre.abs().max() < 12.9  # a tenth of 128


def test_some_faces_turn_grey(faces: torch.Tensor) -> None:
    torch.manual_seed(0)
    many = faces.repeat(8, 1, 1, 1)
    changed = changed_by(Augmentation(0, 0, 0, 0, 0, 0, grey_probability=0.5), many)
    grey = (changed.amax(1) - changed.amin(1)).amax((1, 2)) < 1e-4
    assert 0.3 < grey.float().mean() < 0.7
    assert torch.allclose(changed[~grey], many[~grey], atol=1e-5)


def test_some_faces_are_blurred_and_flat_ones_stay() -> None:
    torch.manual_seed(0)
    noise = torch.rand(64, 3, 32, 32)
    changed = changed_by(Augmentation(0, 0, 0, 0, 0, 0, blur_probability=0.5), noise)
    sharpness = changed.flatten(1).std(1) / noise.flatten(1).std(1)
    assert 0.3 < (sharpness > 0.999).float().mean() < 0.7
    assert sharpness.min() < 0.45  # the mean of nine independent pixels varies a third as much
    flat = torch.full((8, 3, 32, 32), 0.5)
    assert torch.allclose(changed_by(Augmentation(0, 0, 0, 0, 0, 0, blur_probability=1), flat), flat, atol=1e-5)


def test_what_lies_outside_is_black_or_a_reflection() -> None:
    white = torch.ones(64, 3, 32, 32)
    assert changed_by(Augmentation(0, 0, 0, 0, 0, 0, shift=0.3), white).min() == 0
    reflected = changed_by(Augmentation(0, 10, 0, 0, 0, 0, zoom=0.3, shift=0.3, outside="reflection"), white)
    assert reflected.min() > 0.999
