import pytest
import torch
import torch.nn.functional as F

from training.loop.step import NetworkInput
from training.network.preprocess import Preprocess


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("resolution", [128, 160, 224])
def test_the_network_sees_in_training_what_it_sees_when_it_is_served(images: torch.Tensor, resolution: int) -> None:
    preprocess = Preprocess(resolution)
    faces = NetworkInput(preprocess)(images, halved=False)
    assert torch.allclose(faces, preprocess(images), atol=1e-5)
    assert faces.is_contiguous(memory_format=torch.channels_last)


def test_half_the_resolution_shows_the_mean_of_four_pixels(images: torch.Tensor) -> None:
    preprocess = Preprocess(224)
    faces = NetworkInput(preprocess)(images, halved=True)
    assert faces.shape == (4, 3, 112, 112)
    assert torch.allclose(faces, preprocess.standardise(F.avg_pool2d(preprocess.cast(images), 2)), atol=1e-5)
