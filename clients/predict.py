"""Find the faces in photos and print their attributes: files, folders, globs, or "-" for a photo on standard input.

python -m clients.predict photo.jpg holiday/ 'scans/*.png' --url grpc://127.0.0.1:8001
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from clients.client import DEFAULT_IN_FLIGHT, FaceAttributesClient, Wire
from clients.command_line import ServerConnection
from clients.errors import InvalidImage, InvalidInput
from clients.messages import DetectedFace, DetectedFaces, FaceAttributes, PhotoResult, Result
from clients.pictures.annotate import annotate
from clients.pictures.sources import Source, sources
from contract import program
from contract.spec import EMOTIONS

Write = Callable[[str, FaceAttributes], None]

_ATTRIBUTES = ("age", "gender", "gender_probability", "emotion", *EMOTIONS)
_PLACES = ("left", "top", "right", "bottom", "score")


@dataclass(frozen=True)
class Config:
    """Find the faces in photos and print a line for each; exit status 1 when some photo could not be read."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional]  # files, folders, globs, or - for standard input
    server: tyro.conf.OmitArgPrefixes[ServerConnection] = field(default_factory=ServerConnection)
    # All faces that are found, or (`centre`) the largest centred square, for pictures that are a face already.
    crop: Literal["faces", "centre"] = "faces"
    min_score: float | None = None  # of a face found, 0.3 to 1; as the server is configured
    min_face_px: float | None = None  # shorter side of a face found; as the server is configured
    wire: Wire = "tensor"  # with --crop centre: decode here, or (`encoded`) leave it to the server
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
    write = _json_lines() if config.json else _csv_rows(config) if config.csv else _table(found)
    failed = 0
    for source, result in _results(config, found):
        if isinstance(result, InvalidImage):
            failed += 1
            _note(str(result) if isinstance(source.image, Path) else f"{source.name}: {result}")
            continue
        for face in _faces(source, result):
            write(source.name, face)
        if config.annotate:
            try:
                annotate(source.image, result, config.annotate / _relative(source, found))
            except InvalidImage as error:  # the file has changed since
                failed += 1
                _note(f"{source.name}: {error}")
    if failed:
        _note(f"{failed} of {len(found)} images could not be read")
    return int(failed > 0)


def _results(config: Config, found: Sequence[Source]) -> Iterator[tuple[Source, Result | PhotoResult]]:
    images = (source.image for source in found)
    with FaceAttributesClient(config.server.url, wire=config.wire, **config.server.options()) as client:
        stream: Iterator[Result | PhotoResult]
        if config.crop == "centre":
            stream = client.predict_stream(images, in_flight=config.in_flight)
        else:
            limits = {"min_score": config.min_score, "min_face_px": config.min_face_px}
            stream = client.find_faces_stream(images, in_flight=config.in_flight, **limits)
        progress = tqdm(stream, total=len(found), unit="image", disable=None)  # shown on a terminal only
        yield from zip(found, progress, strict=True)


def _faces(source: Source, result: FaceAttributes | DetectedFaces) -> Sequence[FaceAttributes]:
    """The faces of a result; says where a photo has none, or more than are answered."""
    if isinstance(result, FaceAttributes):
        return [result]
    if not result:
        _note(f"{source.name}: no face found")
    elif result.in_photo > len(result):
        _note(f"{source.name}: {result.in_photo} faces, of which the {len(result)} largest are shown")
    return result


def _note(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _table(found: Sequence[Source]) -> Write:
    width = max(len(source.name) for source in found)
    row = f"{{:<{width}}}  {{:>5}}  {{:<12}} {{:<14}} {{}}"
    tqdm.write(row.format("image", "years", "gender", "emotion", "box").rstrip())

    def write(name: str, face: FaceAttributes) -> None:
        gender, emotion = (
            f"{face.gender} {face.gender_probability:.0%}",
            f"{face.emotion} {face.emotion_probability:.0%}",
        )
        box = ",".join(f"{edge:.0f}" for edge in face.box) if isinstance(face, DetectedFace) else ""
        tqdm.write(row.format(name, f"{face.age:.1f}", gender, emotion, box).rstrip())

    return write


def _json_lines() -> Write:
    return lambda name, face: tqdm.write(json.dumps({"image": name, **face.to_dict()}))


def _csv_rows(config: Config) -> Write:
    rows = csv.writer(sys.stdout)
    rows.writerow(("image", *(_PLACES if config.crop == "faces" else ()), *_ATTRIBUTES))

    def write(name: str, face: FaceAttributes) -> None:
        places = (*face.box, face.score) if isinstance(face, DetectedFace) else ()
        attributes = (face.age, face.gender, face.gender_probability, face.emotion, *face.emotions.values())
        rows.writerow((name, *places, *attributes))

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
