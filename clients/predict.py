"""Print the attributes of the faces in images: files, folders, globs, or "-" for an image on standard input.

python -m clients.predict face.jpg holiday/ 'scans/*.png' --url grpc://127.0.0.1:8001
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from clients.client import DEFAULT_IN_FLIGHT, FaceAttributesClient, Wire
from clients.command_line import ServerConnection
from clients.errors import InvalidImage, InvalidInput
from clients.messages import FaceAttributes, Result
from clients.pictures.annotate import annotate
from clients.pictures.sources import Source, sources
from contract import program
from contract.spec import EMOTIONS

Write = Callable[[str, FaceAttributes], None]


@dataclass(frozen=True)
class Config:
    """Print the attributes of the faces in images; exit status 1 when some could not be read."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional]  # files, folders, globs, or - for standard input
    server: tyro.conf.OmitArgPrefixes[ServerConnection] = field(default_factory=ServerConnection)
    wire: Wire = "tensor"  # decode here, or (`encoded`) leave it to the server
    in_flight: int = DEFAULT_IN_FLIGHT  # requests at a time
    json: bool = False  # a JSON object a line
    csv: bool = False
    annotate: Path | None = None  # a folder for the pictures with the result drawn on them


def main(config: Config) -> int:
    if config.json and config.csv:
        raise InvalidInput("--json and --csv exclude each other")
    found = sources(config.images)
    if not found:
        raise InvalidInput(f"no image in {', '.join(config.images) or 'an empty command line'}")
    write = _json_lines() if config.json else _csv_rows() if config.csv else _table(found)
    failed = 0
    for source, result in _results(config, found):
        if isinstance(result, InvalidImage):
            failed += 1
            print(result if isinstance(source.image, Path) else f"{source.name}: {result}", file=sys.stderr)
            continue
        write(source.name, result)
        if config.annotate:
            try:
                annotate(source.image, result, config.annotate / _relative(source, found))
            except InvalidImage as error:  # the file has changed since
                failed += 1
                print(f"{source.name}: {error}", file=sys.stderr)
    if failed:
        print(f"{failed} of {len(found)} images could not be read", file=sys.stderr)
    return int(failed > 0)


def _results(config: Config, found: Sequence[Source]) -> Iterator[tuple[Source, Result]]:
    options = config.server.options()
    with FaceAttributesClient(config.server.url, wire=config.wire, **options) as client:
        stream = client.predict_stream((source.image for source in found), in_flight=config.in_flight)
        progress = tqdm(stream, total=len(found), unit="image", disable=None)  # shown on a terminal only
        yield from zip(found, progress, strict=True)


def _table(found: Sequence[Source]) -> Write:
    width = max(len(source.name) for source in found)
    row = f"{{:<{width}}}  {{:>5}}  {{:<12}} {{}}"
    tqdm.write(row.format("image", "years", "gender", "emotion"))

    def write(name: str, face: FaceAttributes) -> None:
        gender, emotion = (
            f"{face.gender} {face.gender_probability:.0%}",
            f"{face.emotion} {face.emotion_probability:.0%}",
        )
        tqdm.write(row.format(name, f"{face.age:.1f}", gender, emotion))

    return write


def _json_lines() -> Write:
    return lambda name, face: tqdm.write(json.dumps({"image": name, **face.to_dict()}))


def _csv_rows() -> Write:
    rows = csv.writer(sys.stdout)
    rows.writerow(("image", "age", "gender", "gender_probability", "emotion", *EMOTIONS))

    def write(name: str, face: FaceAttributes) -> None:
        rows.writerow((name, face.age, face.gender, face.gender_probability, face.emotion, *face.emotions.values()))

    return write


def _relative(source: Source, found: Sequence[Source]) -> Path:
    """Below the folder that all files have in common, so that no two pictures get the same name."""
    if not isinstance(source.image, Path):
        return Path("stdin.png")
    common = os.path.commonpath([other.image.absolute().parent for other in found if isinstance(other.image, Path)])
    relative = source.image.absolute().relative_to(common)
    return relative.with_name(f"{relative.name}.png")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(Config)))
