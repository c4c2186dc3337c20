import math

import pytest
import torch

from training.dataset import Batch
from training.losses import LossWeights, multi_task_loss
from training.model import Logits

NAN = float("nan")


def batch(age: list[float], gender: list[float], emotion: list[list[float]]) -> Batch:
    count = len(age)
    images = torch.zeros(count, 128, 128, 3, dtype=torch.uint8)
    return Batch(images, torch.tensor(age), torch.tensor(gender), torch.tensor(emotion), torch.arange(count))


def logits(count: int) -> Logits:
    return Logits(torch.full((count,), 30.0), torch.zeros(count), torch.zeros(count, 8))


ONE_HOT = [1.0] + [0.0] * 7
MISSING = [NAN] * 8


def test_each_task_against_its_formula() -> None:
    losses = multi_task_loss(logits(2), batch([20.0, 35.0], [0.0, 1.0], [ONE_HOT, ONE_HOT]), LossWeights(1, 10, 5))
    assert losses.age.item() == pytest.approx(7.5)  # (10 + 5) / 2
    assert losses.gender.item() == pytest.approx(math.log(2))
    assert losses.emotion.item() == pytest.approx(math.log(8))  # KL of one-hot from uniform
    assert losses.total.item() == pytest.approx(7.5 + 10 * math.log(2) + 5 * math.log(8))


def test_soft_labels_that_are_met_cost_nothing() -> None:
    soft = torch.tensor([[0.5, 0.3, 0.2, 0, 0, 0, 0, 0]])
    answered = Logits(torch.zeros(1), torch.zeros(1), (soft + 1e-12).log())
    assert multi_task_loss(answered, batch([0.0], [0.5], soft.tolist()), LossWeights()).emotion.item() < 1e-5


def test_missing_labels_add_nothing_and_are_not_zeros() -> None:
    mixed = batch([20.0, NAN], [NAN, 1.0], [MISSING, ONE_HOT])
    losses = multi_task_loss(logits(2), mixed, LossWeights())
    assert losses.age.item() == pytest.approx(10)
    assert losses.gender.item() == pytest.approx(math.log(2))
    assert losses.emotion.item() == pytest.approx(math.log(8))


def test_a_task_nobody_has_labels_for_is_zero_and_its_gradient_too() -> None:
    answered = Logits(torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True), torch.zeros(1, 8))
    losses = multi_task_loss(answered, batch([NAN], [1.0], [MISSING]), LossWeights())
    losses.total.backward()
    assert losses.age.item() == losses.emotion.item() == 0
    assert answered.age.grad is not None
    assert answered.age.grad.tolist() == [0.0]
