"""A small dataset whose pictures say which row they are of, and predictions that are mostly right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contract.samples import COLUMNS, IMAGES_NAME, MANIFEST_NAME, Labels, write_manifest
from contract.spec import EMOTIONS, Predictions

WriteDataset = Callable[..., Path]


@pytest.fixture
def write_dataset(tmp_path: Path) -> WriteDataset:
    """Write a face for each split given: face i is `i` grey, `i` years old, male if odd, of emotion i modulo 8."""

    def write(*splits: str) -> Path:
        rows = np.arange(len(splits))
        emotions = pd.DataFrame(np.eye(len(EMOTIONS))[rows % len(EMOTIONS)], columns=list(EMOTIONS))
        table = pd.DataFrame(
            {
                "id": [f"{i:05d}" for i in rows],
                "path": [f"thumbnails128x128/{i:05d}.png" for i in rows],
                "age": rows.astype(float),
                "gender": (rows % 2).astype(float),
                "split": list(splits),
            }
        )
        manifest = tmp_path / MANIFEST_NAME
        write_manifest(pd.concat((table, emotions), axis=1)[list(COLUMNS)], manifest)
        images = np.broadcast_to(rows[:, None, None, None], (len(rows), 128, 128, 3)).astype(np.uint8)
        np.save(tmp_path / IMAGES_NAME, images)
        return manifest

    return write


def random_faces(count: int, seed: int = 0) -> tuple[Predictions, Labels]:
    """Ages off by 5 years or so, nine genders in ten right, four emotions in five."""
    rng = np.random.default_rng(seed)
    age, gender = rng.integers(0, 75, count).astype(np.float32), rng.integers(0, 2, count).astype(np.float32)
    emotion = rng.dirichlet(np.ones(8), count).astype(np.float32)
    labels = Labels(age, gender, emotion)
    noisy = np.where(rng.random((count, 1)) < 0.8, emotion, emotion[:, ::-1])
    guess = np.where(rng.random(count) < 0.9, gender, 1 - gender).astype(np.float32)
    return Predictions(age + rng.normal(0, 5, count).astype(np.float32), guess, noisy.astype(np.float32)), labels
