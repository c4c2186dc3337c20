"""A small dataset for training tests: flat colours that tell the labels, so a network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contract.samples import COLUMNS, IMAGES_NAME, MANIFEST_NAME, write_manifest
from contract.spec import EMOTIONS, IMAGE


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 faces to train on, 16 to select on, 16 held out, 4 of age 0."""
    folder = tmp_path_factory.mktemp("dataset")
    splits = ["train"] * 48 + ["selection"] * 16 + ["holdout"] * 16 + ["age_zero"] * 4
    rng = np.random.default_rng(0)
    ages = np.where(np.array(splits) == "age_zero", 0.0, rng.integers(1, 76, len(splits)))
    genders = rng.integers(0, 2, len(splits))
    emotions = rng.dirichlet(np.ones(len(EMOTIONS)), len(splits))
    images = rng.integers(0, 40, (len(splits), *IMAGE.dims), dtype=np.uint8)
    images[..., 0] += (2 * ages).astype(np.uint8)[:, None, None]
    images[..., 1] += (200 * genders).astype(np.uint8)[:, None, None]
    rows = [
        (f"{i:05d}", f"{i:05d}.png", age, gender, *emotion, split)
        for i, (age, gender, emotion, split) in enumerate(zip(ages, genders, emotions, splits, strict=True))
    ]
    write_manifest(pd.DataFrame(rows, columns=list(COLUMNS)), folder / MANIFEST_NAME)
    np.save(folder / IMAGES_NAME, images)
    return folder / MANIFEST_NAME
