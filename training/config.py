"""Settings of a training run. The defaults are the published ones; training.recipes has others by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contract.program import UserError
from contract.samples import Protocol
from training.batches.augmentation import Augmentation
from training.network.model import MAX_RESOLUTION, MIN_RESOLUTION

MIN_SIDE_PX = 32  # where the network's last stage sees one pixel


class SettingsError(UserError, ValueError):
    """The settings do not fit together; the message says which to change."""


@dataclass(frozen=True)
class TrainConfig:
    """Train AgeGenderNet; run it again to continue a run that stopped."""

    recipe: Literal["published", "modern"] = "published"  # what the settings below are unless given (training.recipes)
    manifest: tuple[Path, ...] = (Path("data/synthetic/manifest.csv"),)  # several: their faces are mixed
    repeat: tuple[
        float, ...
    ] = ()  # how often an epoch shows each manifest's faces; 1 unless given, 0.5 is half of them
    out: Path = Path("runs/train")
    protocol: Protocol = "holdout"  # published: selects on the faces it reports on, as the published run did
    resolution: int = 224  # of the network, not of the request; 128 costs a third and loses some accuracy
    first_resolutions: tuple[
        int, ...
    ] = ()  # of the first epochs, one each: at half of `resolution` a step costs a quarter
    epochs: int = 30  # all of them
    batch_size: int = 64  # of all ranks together: with two GPUs each takes half of it
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    schedule: Literal["plateau", "one_cycle"] = (
        "plateau"  # one_cycle: up to learning_rate and by a cosine down to 0 within `epochs`, by computation done
    )
    warm_up_share: float = 0.3  # of a one_cycle's computation, in which the learning rate goes up
    plateau_patience: int = 5  # epochs without a better validation loss before the learning rate falls
    plateau_factor: float = 0.5
    early_stopping_patience: int = 10  # epochs without a better validation loss before training stops
    max_grad_norm: float = 1.0
    age_weight: float = 1.0  # per year of L1
    gender_weight: float = 10.0
    emotion_weight: float = 5.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    start_from: Path | None = None  # a checkpoint whose weights the run begins with, to go on with other faces
    dropout: float = 1.0  # times the published dropout, which a short run pays for and does not need
    quick_start: bool = False  # first weights of the heads that learn in hundreds of steps instead of thousands
    plot_every: int = 5  # epochs between the pictures of the history, as in the published report
    save_every_s: float = 300.0  # an epoch of all faces takes an hour on two cores; this much may be lost at a kill
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the hardware multiplies it
    compile: bool = False  # torch.compile, minutes at the start; where the compiler fails, training goes on without it
    restart: bool = False  # throw away what an earlier run left in `out`

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise SettingsError(f"--batch-size {self.batch_size}: batch normalisation needs 2 or more")
        if self.epochs < 1:
            raise SettingsError(f"--epochs {self.epochs}: must be 1 or more")
        if not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION:
            raise SettingsError(f"--resolution {self.resolution}: must be {MIN_RESOLUTION} to {MAX_RESOLUTION}")
        first = self.first_resolutions
        if first and (len(first) >= self.epochs or not all(MIN_SIDE_PX <= side <= self.resolution for side in first)):
            raise SettingsError(
                f"--first-resolutions {' '.join(map(str, first))}: must be fewer than --epochs ({self.epochs}), each "
                f"from {MIN_SIDE_PX} to --resolution ({self.resolution})"
            )

    def resolution_of(self, epoch: int) -> int:
        """Return the network resolution of an epoch, counted from 0."""
        return self.first_resolutions[epoch] if epoch < len(self.first_resolutions) else self.resolution
