import pytest
import torch

from training.network.model import AgeGenderNet, parameter_count
from training.network.preprocess import Preprocess


@pytest.fixture(scope="module")
def network() -> AgeGenderNet:
    return AgeGenderNet()


def test_has_the_published_number_of_parameters(network: AgeGenderNet) -> None:
    assert parameter_count(network) == 9_365_552
    assert parameter_count(network) - parameter_count(network.emotion_head) == 9_356_776


@pytest.mark.parametrize("resolution", [128, 192, 224])
def test_answers_at_every_resolution(network: AgeGenderNet, resolution: int) -> None:
    images = torch.randint(0, 256, (2, 128, 128, 3), dtype=torch.uint8)
    faces = Preprocess(resolution)(images)
    assert faces.shape == (2, 3, resolution, resolution)
    logits = network.eval()(faces)
    assert [tuple(t.shape) for t in logits] == [(2,), (2,), (2, 8)]
    assert torch.allclose(logits.answers().emotion.sum(1), torch.ones(2))


@pytest.mark.parametrize("resolution", [127, 225])
def test_refuses_resolutions_that_the_served_graph_could_not_reach_well(resolution: int) -> None:
    with pytest.raises(ValueError, match="128-224"):
        Preprocess(resolution)


def test_initialisation_is_the_published_one() -> None:
    fresh = AgeGenderNet()
    linear = fresh.dense[0].weight
    assert linear.std().item() == pytest.approx(0.01, rel=0.05)
    conv = fresh.stages[0][0].body[0].weight  # Kaiming normal, fan out: sqrt(2 / (64 * 3 * 3))
    assert conv.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.05)


def test_normalisation_is_imagenets() -> None:
    white = Preprocess(128)(torch.full((1, 128, 128, 3), 255, dtype=torch.uint8))
    expected = [(1 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert white[0, :, 64, 64].tolist() == pytest.approx(expected)
