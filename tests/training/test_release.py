import dataclasses
from pathlib import Path

import pytest
import torch

from training.network.checkpoint import Checkpoint, load_checkpoint
from training.network.model import AgeGenderNet
from training.release import ReleaseConfig, ReleaseError, release


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(AgeGenderNet().eval(), 128, {"seed": 0}, {"selection_loss": 1.0})


def test_released_weights_are_half_as_large_and_keep_their_description(
    checkpoint: Checkpoint, manifest: Path, tmp_path: Path
) -> None:
    config = ReleaseConfig(tmp_path / "unused", tmp_path / "weights.safetensors", (manifest,), check_images=8)
    assert "8 faces" in release(checkpoint, config)
    assert config.out.stat().st_size < 19.5e6
    released = load_checkpoint(config.out)
    assert (released.resolution, released.config, released.metrics) == (128, {"seed": 0}, {"selection_loss": 1.0})


def test_weights_that_half_precision_cannot_hold_are_not_released(
    checkpoint: Checkpoint, manifest: Path, tmp_path: Path
) -> None:
    config = ReleaseConfig(tmp_path / "unused", tmp_path / "weights.safetensors", (manifest,), check_images=8)
    with torch.no_grad():
        checkpoint.network.age_head[-1].bias.fill_(1e5)  # type: ignore[union-attr]
    with pytest.raises(ReleaseError, match="float32"):
        release(dataclasses.replace(checkpoint), config)
    assert not config.out.exists()
