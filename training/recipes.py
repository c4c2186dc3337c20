"""Settings by name: what `--recipe` stands for. Whatever else the command line says comes on top."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import tyro

from training.batches.augmentation import Augmentation
from training.config import TrainConfig

RECIPES = {
    "published": TrainConfig(),
    "modern": TrainConfig(
        recipe="modern",
        batch_size=128,
        optimizer="adamw",
        learning_rate=1.5e-3,
        weight_decay=0.02,
        schedule="one_cycle",
        warm_up_share=0.1,
        augmentation=Augmentation(
            zoom=0.2, shift=0.05, grey_probability=0.1, blur_probability=0.1, outside="reflection"
        ),
        dropout=0.4,
        quick_start=True,
    ),
}


def parse_config(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Return the settings a command line asks for: those of its recipe, and on top what it names itself."""
    return tyro.cli(TrainConfig, default=recipe_of(arguments), args=arguments)


def recipe_of(arguments: Sequence[str] | None = None) -> TrainConfig:
    """Return the settings of the recipe that a command line names, and nothing else of it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", choices=sorted(RECIPES), default="published")
    known, _ = first.parse_known_args(arguments)
    return RECIPES[known.recipe]
