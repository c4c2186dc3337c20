"""Pictures that stand in for faces: what the network says of them is arbitrary, but not the same for any two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from contract.samples import IMAGES_NAME, write_manifest
from contract.spec import EMOTIONS, IMAGE, Images


def make_pictures(count: int, *, seed: int = 0) -> Images:
    """Smooth random colours, uint8 [count, 128, 128, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    size = IMAGE.dims[:2]
    return np.stack([np.asarray(Image.fromarray(c).resize(size, Image.Resampling.BICUBIC)) for c in coarse])


def make_dataset(folder: Path, images: Images) -> Path:
    """A dataset of the pictures with random labels; its manifest."""
    rng = np.random.default_rng(1)
    emotions = rng.dirichlet(np.ones(len(EMOTIONS)), len(images))
    table = pd.DataFrame(
        {
            "id": [f"{i:05}" for i in range(len(images))],
            "path": "none.png",
            "age": rng.integers(1, 70, len(images)),
            "gender": rng.integers(0, 2, len(images)),
            "split": "holdout",
            **dict(zip(EMOTIONS, emotions.T, strict=True)),
        }
    )
    np.save(folder / IMAGES_NAME, images)
    write_manifest(table, folder / "manifest.csv")
    return folder / "manifest.csv"
