import math

import pytest
import torch

from training.batches.dataset import Targets
from training.loop.losses import LossWeights, MultiTaskLoss
from training.network.model import Logits

NAN = float("nan")


def targets(age: list[float], gender: list[float], emotion: list[list[float]]) -> Targets:
    labels = torch.tensor(age), torch.tensor(gender), torch.tensor(emotion)
    known = [(~label.isnan()).sum() for label in (labels[0], labels[1], labels[2].sum(1))]
    return Targets(*labels, torch.tensor(known).float())


def logits(count: int) -> Logits:
    return Logits(torch.full((count,), 30.0), torch.zeros(count), torch.zeros(count, 8))


ONE_HOT = [1.0] + [0.0] * 7
MISSING = [NAN] * 8


def test_each_task_against_its_formula() -> None:
    losses = MultiTaskLoss(LossWeights(1, 10, 5))(logits(2), targets([20.0, 35.0], [0.0, 1.0], [ONE_HOT, ONE_HOT]))
    assert losses.age.item() == pytest.approx(7.5)  # (10 + 5) / 2
    assert losses.gender.item() == pytest.approx(math.log(2))
    assert losses.emotion.item() == pytest.approx(math.log(8))  # KL of one-hot from uniform
    assert losses.total.item() == pytest.approx(7.5 + 10 * math.log(2) + 5 * math.log(8))


def test_soft_labels_that_are_met_cost_nothing() -> None:
    soft = torch.tensor([[0.5, 0.3, 0.2, 0, 0, 0, 0, 0]])
    answered = Logits(torch.zeros(1), torch.zeros(1), (soft + 1e-12).log())
    assert MultiTaskLoss(LossWeights())(answered, targets([0.0], [0.5], soft.tolist())).emotion.item() < 1e-5


def test_missing_labels_add_nothing_and_are_not_zeros() -> None:
    mixed = targets([20.0, NAN], [NAN, 1.0], [MISSING, ONE_HOT])
    losses = MultiTaskLoss(LossWeights())(logits(2), mixed)
    assert losses.age.item() == pytest.approx(10)
    assert losses.gender.item() == pytest.approx(math.log(2))
    assert losses.emotion.item() == pytest.approx(math.log(8))


def test_a_task_nobody_has_labels_for_is_zero_and_its_gradient_too() -> None:
    answered = Logits(torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True), torch.zeros(1, 8))
    losses = MultiTaskLoss(LossWeights())(answered, targets([NAN], [1.0], [MISSING]))
    losses.total.backward()
    assert losses.age.item() == losses.emotion.item() == 0
    assert answered.age.grad is not None
    assert answered.age.grad.tolist() == [0.0]


def test_the_parts_of_a_batch_add_up_to_its_mean_whoever_has_the_labels() -> None:
    """Two ranks: all ages are the first one's, which has three faces of five with a gender."""
    loss = MultiTaskLoss(LossWeights())
    whole = targets([20.0, 30.0, NAN, NAN, NAN, NAN], [1.0, NAN, 0.0, 1.0, NAN, 1.0], [MISSING] * 5 + [ONE_HOT])
    answers = Logits(torch.arange(6.0), torch.arange(6.0), torch.arange(48.0).view(6, 8))
    parts = [
        loss(Logits(*(a[part] for a in answers)), Targets(*(t[part] for t in whole[:3]), whole.known))
        for part in (slice(0, 4), slice(4, 6))
    ]
    for name, expected in loss(answers, whole)._asdict().items():
        assert sum(getattr(part, name) for part in parts).item() == pytest.approx(expected.item())
