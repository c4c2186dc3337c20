"""Whole photos: which faces are found, what finding them costs in accuracy, and how long it takes.

python -m loadtest.photos --model model.onnx --manifests data/ffhq/manifest.csv --out loadtest/results/photos

Photos are made: held-out faces of datasets in FFHQ's frame are placed into smooth backgrounds at one size a photo. Each
is answered twice: cut from the photo by the server, and as the dataset has it, which is the crop it is compared with.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from clients import DetectedFace, FaceAttributesClient
from clients.client import DEFAULT_IN_FLIGHT
from clients.streams import map_ordered
from contract import program
from contract.files import replacing
from contract.repository import copy_with_model
from contract.samples import Labels, Samples, load_samples
from contract.spec import EMOTIONS, GENDERS, IMAGE_SIDE_PX, Float32, Images, Predictions
from evaluation.metrics import METRICS
from evaluation.text import markdown_table
from loadtest.hardware import describe_hardware, server_versions
from serving.server import ANY_PORTS, TritonServer

PHOTO_SIZE = (1280, 960)
# Of FFHQ's frame, of which a detector's box is about 0.55 wide and 0.72 high.
FRAME_SIDES_PX = (32, 48, 64, 96, 128, 192, 320, 640)

SHOWN = [metric for metric in METRICS.values() if metric.headline]


@dataclass(frozen=True)
class PhotosConfig:
    """Measure a model behind photo_attributes, on a CPU server of its own."""

    model: Path  # ONNX, exported by convert.export_onnx
    manifests: tuple[Path, ...]  # of datasets in FFHQ's frame
    out: Path = Path("loadtest/results/photos")
    repository: Path = Path("model_repository")  # its code and configurations
    faces: int = 100  # held-out faces of each dataset at each size; all where it has fewer
    seconds: float = 5.0  # of each measurement of time; 0 for none
    seed: int = 0


@dataclass(frozen=True)
class Placed:
    """A photo and where its faces are."""

    encoded: bytes
    rows: list[int]  # of the dataset's held-out faces
    middles: Float32  # [N, 2], pixels


def main(config: PhotosConfig) -> None:
    """Measure, print the report and write it. Raises ManifestError, ServingError."""
    datasets = {manifest.parent.name: load_samples(manifest) for manifest in config.manifests}
    with TemporaryDirectory() as folder:
        repository = copy_with_model(config.repository, Path(folder, "model_repository"), config.model)
        with (
            TritonServer(repository, ANY_PORTS) as server,
            FaceAttributesClient(server.grpc_url, timeout_s=120) as client,
        ):
            rows = [row for name, samples in datasets.items() for row in accuracy(client, name, samples, config)]
            times = list(timings(client, next(iter(datasets.values())), config.seconds)) if config.seconds else []
    report = "\n\n".join((_conditions(config), _accuracy_table(rows), *([_time_table(times)] if times else []))) + "\n"
    print(report)
    with replacing(config.out / "report.md") as temporary:
        temporary.write_text(report)


# Accuracy


def accuracy(client: FaceAttributesClient, name: str, samples: Samples, config: PhotosConfig) -> Iterator[list[str]]:
    """Yield a row of the table for each size of the faces of one dataset."""
    rng = np.random.default_rng(config.seed)
    chosen = np.sort(rng.permutation(len(samples))[: config.faces])
    samples = samples.take(chosen)
    images = np.concatenate(list(samples.image_batches(256)))
    given = client.infer(images)
    for side_px in tqdm(FRAME_SIDES_PX, desc=name):
        photos = list(place(images, side_px, rng))
        answers = client.find_faces_batch([photo.encoded for photo in photos])
        found: dict[int, DetectedFace] = {}
        false = 0
        for photo, faces in zip(photos, answers, strict=True):
            if isinstance(faces, Exception):
                raise faces
            false += _assign(photo, faces, side_px, found)
        yield [name, str(side_px), *_scores(samples.labels, given, found, len(images)), str(false)]


def place(images: Images, side_px: int, rng: np.random.Generator) -> Iterator[Placed]:
    """Yield photos with the faces in a loose grid, each with a little of its own reflected surroundings."""
    pad = IMAGE_SIDE_PX // 8
    cell_px = round(side_px * 1.4)
    columns, rows = (max(size // cell_px, 1) for size in PHOTO_SIZE)
    for start in range(0, len(images), min(columns * rows, 12)):
        count = min(len(images) - start, columns * rows, 12)
        cells = rng.permutation(columns * rows)[:count]
        coarse = rng.integers(40, 216, (6, 8, 3), np.uint8)
        photo = Image.fromarray(coarse).resize(PHOTO_SIZE, Image.Resampling.BICUBIC)
        middles = []
        for row, cell in enumerate(cells, start):
            padded = Image.fromarray(np.pad(images[row], ((pad, pad), (pad, pad), (0, 0)), mode="reflect"))
            outer_px = round(side_px * (1 + 2 * pad / IMAGE_SIDE_PX))
            slack = np.array(PHOTO_SIZE) / (columns, rows) - outer_px
            corner = np.array(PHOTO_SIZE) / (columns, rows) * (cell % columns, cell // columns)
            corner = (corner + rng.uniform(0, 1, 2) * slack).round().astype(int)
            photo.paste(padded.resize((outer_px, outer_px), Image.Resampling.LANCZOS), tuple(corner.tolist()))
            middles.append(corner + outer_px / 2)
        yield Placed(_jpeg(photo), list(range(start, start + count)), np.array(middles, np.float32))


def _assign(photo: Placed, faces: list[DetectedFace], side_px: int, found: dict[int, DetectedFace]) -> int:
    """Give each placed face the nearest one found near its middle; the number found where no picture was placed."""
    false = 0
    for face in faces:
        left, top, right, bottom = face.box
        away = np.abs(photo.middles - ((left + right) / 2, (top + bottom) / 2)).max(axis=1) / side_px
        nearest = int(away.argmin())
        if away[nearest] < 0.25:
            found.setdefault(photo.rows[nearest], face)
        elif away[nearest] > 0.7:  # nearer it is somebody else in the dataset's own picture
            false += 1
    return false


def _scores(labels: Labels, given: Predictions, found: dict[int, DetectedFace], count: int) -> list[str]:
    """Found, then each metric of the found faces: as given, as found."""
    rows = np.array(sorted(found), np.int64)
    cells = [f"{100 * len(rows) / count:.1f}"]
    if not len(rows):
        return [*cells, *["-"] * len(SHOWN)]
    as_found = _predictions([found[row] for row in rows.tolist()])
    as_given = Predictions(given.age[rows], given.gender[rows], given.emotion[rows])
    for metric in SHOWN:
        values = [metric.scale * np.nanmean(metric.per_face(p, labels[rows])) for p in (as_given, as_found)]
        cells.append("-" if np.isnan(values).any() else f"{values[0]:.2f} -> {values[1]:.2f}")
    return cells


def _predictions(faces: list[DetectedFace]) -> Predictions:
    male = [f.gender_probability if f.gender == GENDERS[1] else 1 - f.gender_probability for f in faces]
    emotions = [[face.emotions[emotion] for emotion in EMOTIONS] for face in faces]
    ages = np.array([face.age for face in faces], np.float32)
    return Predictions(ages, np.array(male, np.float32), np.array(emotions, np.float32))


# Time


def timings(client: FaceAttributesClient, samples: Samples, seconds: float) -> Iterator[list[str]]:
    """Yield a row for each kind of request: median alone, against one canonical image, and photos/s in a crowd."""
    [images] = samples.take(slice(0, 16)).image_batches(16)
    kinds: dict[str, Callable[[], object]] = {"one canonical image": lambda: client.infer(images[:1])}
    for name, size, count in (
        ("640 x 480, no face", (640, 480), 0),
        ("640 x 480, one face", (640, 480), 1),
        ("1280 x 960, 16 faces", (1280, 960), 16),
        ("4000 x 3000, one face", (4000, 3000), 1),
    ):
        photo = _jpeg(_photo_for_timing(images[:count], size))
        kinds[name] = lambda photo=photo: client.find_faces(photo)  # type: ignore[misc]
    alone_ms = {name: _median_ms(ask, seconds) for name, ask in kinds.items()}
    for name, ask in kinds.items():
        crowd = _per_second(ask, seconds)
        ratio = alone_ms[name] / alone_ms["one canonical image"]
        yield [name, f"{alone_ms[name]:.1f}", f"{ratio:.1f}", f"{crowd:.1f}"]


def _photo_for_timing(images: Images, size: tuple[int, int]) -> Image.Image:
    photo = Image.new("RGB", size, (96, 118, 84)).effect_spread(3)
    side_px = size[1] // 2 if len(images) == 1 else size[1] // 5
    for n, image in enumerate(images):
        face = Image.fromarray(image).resize((side_px, side_px), Image.Resampling.LANCZOS)
        photo.paste(face, (n % 4 * size[0] // 4 + 9, n // 4 * size[1] // 4 + 9))
    return photo


def _median_ms(ask: Callable[[], object], seconds: float) -> float:
    for _ in range(3):
        ask()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < 5:
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken))


def _per_second(ask: Callable[[], object], seconds: float) -> float:
    """With DEFAULT_IN_FLIGHT requests at the server, for about so many seconds."""
    started = time.perf_counter()

    def until() -> Iterator[None]:
        while time.perf_counter() < started + seconds:
            yield None

    answered = sum(1 for _ in map_ordered(lambda _: ask(), until(), in_flight=DEFAULT_IN_FLIGHT))
    return answered / (time.perf_counter() - started)


def _jpeg(photo: Image.Image) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


# Report


def _conditions(config: PhotosConfig) -> str:
    return (
        f"# Whole photos\n\nModel `{config.model.name}`; {describe_hardware()}; {server_versions()}. Client and server "
        f"share the cores. Photos of {PHOTO_SIZE[0]} x {PHOTO_SIZE[1]} in JPEG, at most 12 faces each, "
        f"{config.faces} faces of each dataset at each size."
    )


def _accuracy_table(rows: list[list[str]]) -> str:
    header = ["dataset", "frame (px)", "found (%)", *(metric.title for metric in SHOWN), "false"]
    text = (
        "The frame is FFHQ's; a face's box has 0.55 x 0.72 of it. Accuracy is of the faces found: in the dataset's own "
        "crop at its full size -> cut from the photo. False are faces found where none was placed."
    )
    return f"## Accuracy\n\n{text}\n\n{markdown_table(header, rows)}"


def _time_table(rows: list[list[str]]) -> str:
    header = ["request", "alone, p50 (ms)", "times one canonical image", f"per second, {DEFAULT_IN_FLIGHT} in flight"]
    return f"## Time\n\n{markdown_table(header, rows)}"


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(PhotosConfig)))
