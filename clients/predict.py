"""Attributes of the faces in image files.

python -m clients.predict face.jpg other.png --url grpc://127.0.0.1:8001
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from clients.client import FaceAttributesClient
from clients.errors import FaceAttributesError, InvalidImage


@dataclass(frozen=True)
class Config:
    """Attributes of the faces in image files; exit status 1 when some could not be read."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    url: str = "grpc://127.0.0.1:8001"  # http://host:port too


def main(config: Config) -> int:
    failed = 0
    with FaceAttributesClient(config.url) as client:
        for path, result in zip(config.files, client.predict_batch(config.files), strict=True):
            if isinstance(result, InvalidImage):
                failed += 1
                print(result, file=sys.stderr)
            else:
                confidence = result.emotions[result.emotion]
                print(
                    f"{path}: {result.age:.0f} years, {result.gender} ({result.gender_probability:.0%}), "
                    f"{result.emotion} ({confidence:.0%})"
                )
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Config)))
    except FaceAttributesError as error:
        sys.exit(f"error: {error}")
