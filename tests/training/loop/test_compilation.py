"""A network small enough for the compiler to take seconds."""

import pytest
import torch
from torch import nn

from training.loop.compilation import compiled_or_not
from training.network.distributed import Ranks
from training.network.model import Logits


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 10)

    def forward(self, faces: torch.Tensor) -> Logits:
        answers = self.head(self.body(faces).mean((2, 3)))
        return Logits(answers[:, 0], answers[:, 1], answers[:, 2:])


@pytest.fixture
def network() -> Small:
    torch.manual_seed(0)
    torch.compiler.reset()
    return Small().train()


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_trying_the_compiler_leaves_names_weights_statistics_and_gradients_alone(network: Small, backend: str) -> None:
    before, faces = state_of(network), torch.rand(4, 3, 8, 8)
    compiled = compiled_or_not(lambda: network, network, [faces], Ranks(), backend=backend)
    assert compiled is not network
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in network.parameters())
    found = compiled(faces)
    network.load_state_dict(before)
    assert torch.allclose(found.emotion, network(faces).emotion, atol=1e-5)


def test_where_the_compiler_fails_training_goes_on_without_it_and_says_why_in_a_line(
    network: Small, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand much more about it")

    before, faces = state_of(network), torch.rand(4, 3, 8, 8)
    assert compiled_or_not(lambda: network, network, [faces], Ranks(), backend=broken) is network
    printed = capsys.readouterr().out
    assert printed.startswith("torch.compile failed, training goes on without it: ")
    assert "no C++ compiler" in printed
    assert printed.count("\n") == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
