import pytest
import torch

from training.config import TrainConfig
from training.loop.optimizer import make_scheduler, one_cycle


def rates(config: TrainConfig, *, batches_per_epoch: int) -> list[float]:
    """The learning rate of each step of a run."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], config.learning_rate)
    scheduler = make_scheduler(optimizer, config, batches_per_epoch=batches_per_epoch)
    found = []
    for _ in range(config.epochs * batches_per_epoch):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()  # type: ignore[call-arg]
    return found


def test_a_cycle_rises_to_the_learning_rate_and_ends_near_zero() -> None:
    config = TrainConfig(schedule="one_cycle", learning_rate=0.5, warm_up_share=0.25, epochs=4)
    found = rates(config, batches_per_epoch=100)
    assert max(found) == found[100] == pytest.approx(0.5)
    assert found[:101] == sorted(found[:101])
    assert found[100:] == sorted(found[100:], reverse=True)
    assert found[0] == pytest.approx(0.02)
    assert 0 < found[-1] < 1e-4


def test_a_step_moves_the_cycle_by_what_it_computes() -> None:
    """Four epochs at half the resolution are half of the computation, the one after them the other half."""
    config = TrainConfig(
        schedule="one_cycle",
        learning_rate=1.0,
        warm_up_share=0.0,
        resolution=128,
        first_resolutions=(64,) * 4,
        epochs=5,
    )
    found = rates(config, batches_per_epoch=10)
    assert found[40] == pytest.approx(one_cycle(0.5, 0.0)) == pytest.approx(0.5)
    assert found[39] - found[40] == pytest.approx((found[40] - found[41]) / 4, rel=0.05)
