"""Draw labelled faces in FFHQ's layout, so that everything runs without a download.

python -m training.data.synthetic --count 2000 --out data/synthetic --seed 0

Writes OUT/thumbnails128x128/00000.png and OUT/json/00000.json (FFHQ-Features' format) and so on. Face i depends on the
seed and i alone: a larger count only adds faces. Age, gender and emotion can be seen; skin, background, light and pose
are independent of them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import uuid
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image, ImageDraw
from tqdm import tqdm

from contract import program
from contract.files import replacing
from contract.spec import AGE_GROUPS, EMOTIONS, GENDERS, IMAGE_SIDE_PX
from training.data.portrait.appearance import Appearance, Beard, Subject
from training.data.portrait.canvas import SIDE_PX
from training.data.portrait.drawing import draw_face

IMAGES_FOLDER = "thumbnails128x128"
ANNOTATIONS_FOLDER = "json"
DESCRIPTION_NAME = "synthetic.json"

# FFHQ's shares are .14 .09 .29 .24 .13 .08 .03 .007: here the old are boosted, so that a small set has all groups.
AGE_GROUP_SHARES = (0.14, 0.10, 0.23, 0.19, 0.12, 0.09, 0.08, 0.05)
YOUNGEST, OLDEST = 1, 75  # years; age 0 is FFHQ's special case, see contract.samples

# FFHQ's are anger .004, contempt .003, disgust .001, fear .0001, happiness .62, neutral .35, sadness .009 and
# surprise .013: here the rare ones are boosted to 35 % together, so that a few hundred faces show all eight.
EMOTION_SHARES = (0.07, 0.04, 0.04, 0.04, 0.40, 0.25, 0.08, 0.08)

# Of moustache, beard and sideburns, as the annotations have them.
_FACIAL_HAIR: dict[Beard, tuple[float, float, float]] = {
    "none": (0.0, 0.0, 0.0),
    "stubble": (0.4, 0.4, 0.4),
    "moustache": (0.9, 0.1, 0.1),
    "goatee": (0.9, 0.6, 0.1),
    "full": (0.9, 0.9, 0.9),
}

SHEET_COLUMNS, SHEET_ROWS = 12, 8
_CAPTION_PX = 14


@dataclass(frozen=True)
class Config:
    out: Path
    count: int = 2000  # the smallest set that trains to clearly more than guessing in a few minutes on a CPU
    seed: int = 0
    contact_sheet: Path | None = None  # also write the first faces with their labels as one picture
    workers: int = len(os.sched_getaffinity(0))  # a face takes about 10 ms of one core


def sample_subject(rng: np.random.Generator) -> Subject:
    """Draw a person by the shares above; gender is independent of age, emotion of both."""
    group = int(rng.choice(len(AGE_GROUPS), p=AGE_GROUP_SHARES))
    age = int(rng.integers(max(10 * group, YOUNGEST), min(10 * group + 9, OLDEST) + 1))
    gender = GENDERS[int(rng.integers(len(GENDERS)))]
    return Subject(age, gender, _sample_emotion(rng))


def _sample_emotion(rng: np.random.Generator) -> dict[str, float]:
    """Confidences of three decimals that sum to 1; as in FFHQ-Features, three in four faces are almost sure."""
    leading = int(rng.choice(len(EMOTIONS), p=EMOTION_SHARES))
    sure = rng.uniform(0.95, 1) if rng.random() < 0.72 else rng.uniform(0.55, 0.95)
    others = np.delete(np.arange(len(EMOTIONS)), leading)
    neutral = EMOTIONS.index("neutral")
    second = neutral if leading != neutral and rng.random() < 0.7 else int(rng.choice(others))
    thousandths = np.zeros(len(EMOTIONS), int)
    thousandths[leading] = round(1000 * sure)
    thousandths[second] += 1000 - thousandths[leading]
    return dict(zip(EMOTIONS, (thousandths / 1000).tolist(), strict=True))


def synthesize(seed: int, index: int) -> tuple[Image.Image, list[dict[str, Any]]]:
    """Draw face `index` of a seed: its picture, 128 x 128 RGB, and its annotation in FFHQ-Features' format."""
    rng = np.random.default_rng((seed, index))
    subject = sample_subject(rng)
    appearance = Appearance.of(subject, rng)
    annotation = _annotation(subject, appearance, face_id=uuid.UUID(bytes=rng.bytes(16), version=4))
    return draw_face(appearance, rng), [annotation]


def _annotation(subject: Subject, appearance: Appearance, *, face_id: uuid.UUID) -> dict[str, Any]:
    pose = appearance.pose
    return {
        "faceId": str(face_id),
        "faceRectangle": _face_rectangle(appearance),
        "faceAttributes": {
            "smile": subject.emotion["happiness"],
            "headPose": {
                "pitch": round(pose.pitch_deg, 1),
                "roll": round(pose.roll_deg, 1),
                "yaw": round(pose.yaw_deg, 1),
            },
            "gender": subject.gender,
            "age": float(subject.age),
            "facialHair": dict(zip(("moustache", "beard", "sideburns"), _FACIAL_HAIR[appearance.beard], strict=True)),
            "glasses": "ReadingGlasses" if appearance.glasses else "NoGlasses",
            "emotion": dict(subject.emotion),
        },
    }


def _face_rectangle(appearance: Appearance) -> dict[str, int]:
    """The square from brows to chin, in pixels of the picture."""
    pose = appearance.pose
    reach = [(-1.0, -0.61), (1.0, 1.39)]  # face units
    (left, top), (right, bottom) = (pose.plane(reach) * (IMAGE_SIDE_PX / SIDE_PX)).tolist()
    return {"top": round(top), "left": round(left), "width": round(right - left), "height": round(bottom - top)}


def write_faces(config: Config) -> None:
    """Draw and write all faces. Raises FileExistsError where `out` holds faces of another seed or more of them."""
    _claim_folder(config)
    write = partial(_write_face, config.out, config.seed)
    # Spawned, as forking a process that has threads (a test's, a notebook's) can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(config.workers, config.count), mp_context=context) as pool:
        written = pool.map(write, range(config.count), chunksize=16)
        for _ in tqdm(written, total=config.count, desc="drawing faces", unit="face"):
            pass


def _claim_folder(config: Config) -> None:
    """Two different sets in one folder would look like one: refuse to mix them."""
    description = config.out / DESCRIPTION_NAME
    if description.exists():
        found = json.loads(description.read_text())
        if found["seed"] != config.seed or found["count"] > config.count:
            raise FileExistsError(
                f"{config.out} holds {found['count']} faces of seed {found['seed']}; remove it or choose another --out"
            )
    elif config.out.exists() and any(config.out.iterdir()):
        raise FileExistsError(f"{config.out} holds files that are no synthetic faces; choose another --out")
    for folder in (IMAGES_FOLDER, ANNOTATIONS_FOLDER):
        (config.out / folder).mkdir(parents=True, exist_ok=True)
    with replacing(description) as temporary:
        temporary.write_text(json.dumps({"seed": config.seed, "count": config.count}) + "\n")


def _write_face(out: Path, seed: int, index: int) -> None:
    picture, annotation = synthesize(seed, index)
    with replacing(out / IMAGES_FOLDER / f"{index:05d}.png") as temporary:
        picture.save(temporary, compress_level=1, compress_type=zlib.Z_RLE)  # noise: faster and smaller than LZ77
    with replacing(out / ANNOTATIONS_FOLDER / f"{index:05d}.json") as temporary:
        temporary.write_text(json.dumps(annotation))


def contact_sheet(seed: int, count: int) -> Image.Image:
    """Draw the first faces of a seed in rows, each above its labels."""
    count = min(count, SHEET_COLUMNS * SHEET_ROWS)
    cell_px = (IMAGE_SIDE_PX, IMAGE_SIDE_PX + _CAPTION_PX)
    columns, rows = min(count, SHEET_COLUMNS), -(-count // SHEET_COLUMNS)
    sheet = Image.new("RGB", (columns * cell_px[0], rows * cell_px[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for index in range(count):
        picture, [annotation] = synthesize(seed, index)
        corner = (index % SHEET_COLUMNS * cell_px[0], index // SHEET_COLUMNS * cell_px[1])
        sheet.paste(picture, corner)
        draw.text((corner[0] + 4, corner[1] + IMAGE_SIDE_PX + 1), _caption(annotation["faceAttributes"]), fill="black")
    return sheet


def _caption(attributes: dict[str, Any]) -> str:
    emotion = max(attributes["emotion"], key=attributes["emotion"].get)
    return f"{attributes['age']:.0f} {attributes['gender']} {emotion}"


def main(config: Config) -> None:
    write_faces(config)
    if config.contact_sheet is not None:
        with replacing(config.contact_sheet) as temporary:
            contact_sheet(config.seed, config.count).save(temporary)
    print(f"{config.count} faces in {config.out}")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(Config)))
