import pytest
import torch
import torch.nn.functional as F

from training.network.preprocess import Preprocess, TrainingPreprocess


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("resolution", [128, 160, 224])
def test_the_network_sees_in_training_what_it_sees_when_it_is_served(images: torch.Tensor, resolution: int) -> None:
    preprocess = Preprocess(resolution)
    faces = TrainingPreprocess(preprocess)(images, side_px=resolution)
    assert torch.allclose(faces, preprocess(images), atol=1e-5)
    assert faces.is_contiguous(memory_format=torch.channels_last)


def test_half_the_resolution_shows_the_mean_of_four_pixels(images: torch.Tensor) -> None:
    preprocess = Preprocess(128)
    faces = TrainingPreprocess(preprocess)(images, side_px=64)
    assert torch.allclose(faces, F.avg_pool2d(preprocess(images), 2), atol=1e-5)
