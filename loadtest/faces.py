"""The pictures that are sent: real ones from a manifest or a folder, or synthetic ones that need no download."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clients.pictures.sources import sources
from contract.images import canonical
from contract.samples import load_samples
from contract.spec import Images

MAX_PICTURES = 256  # sent in turn; more would only take memory
SYNTHETIC_PICTURES = 16
SYNTHETIC_SIDE_PX = 512  # what a cropped photograph has: decoding and downsizing it costs the server what that does


@dataclass(frozen=True)
class Picture:
    """One picture in both forms that a request may carry."""

    canonical: Images  # [1, 128, 128, 3]
    encoded: bytes


@dataclass(frozen=True)
class Pictures:
    """What is sent in turn, and its description for the conditions of a measurement."""

    items: tuple[Picture, ...]
    description: str


def load_pictures(source: str) -> Pictures:
    """Load from a dataset's manifest.csv, a folder, file or glob; synthetic where `source` is empty.

    Raises ManifestError or ImageError for what cannot be read, OSError for a missing file, ValueError for an empty
    folder.
    """
    files = [_file(path) for path in _paths(source)] if source else [_synthetic(n) for n in range(SYNTHETIC_PICTURES)]
    if not files:
        raise ValueError(f"no picture in {source}; name a manifest.csv, or a folder of PNG, JPEG, WebP or BMP files")
    mean_kb = sum(map(len, files)) / len(files) / 1000
    kind = f"of {source}" if source else f"synthetic, JPEG {SYNTHETIC_SIDE_PX} x {SYNTHETIC_SIDE_PX}"
    items = tuple(Picture(canonical(data)[None], data) for data in files)
    return Pictures(items, f"{len(items)} pictures {kind}, {mean_kb:.0f} kB on average")


def _paths(source: str) -> list[Path]:
    if source.endswith(".csv"):
        return load_samples(Path(source)).paths[:MAX_PICTURES]
    return [found.image for found in sources([source]) if isinstance(found.image, Path)][:MAX_PICTURES]


def _file(path: Path) -> bytes:
    data = path.read_bytes()
    canonical(data)  # fails here, before any load, rather than as an error of the server's
    return data


def _synthetic(seed: int) -> bytes:
    """Smooth colours and some noise, the same for every run: about as many bytes as a photograph of this size."""
    rng = np.random.default_rng(seed)
    size = (SYNTHETIC_SIDE_PX, SYNTHETIC_SIDE_PX)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse) // 2 + rng.integers(40, 60, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
