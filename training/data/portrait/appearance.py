"""What a person of an age, gender and emotion looks like: the numbers that head, features and hair are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from contract.spec import IMAGE_SIDE_PX
from training.data.portrait.canvas import SIDE_PX, Colour, Pose, clamp, mix, shade

HairStyle = Literal["crop", "swept", "curls", "horseshoe", "bald", "wisps", "bowl", "long", "bob", "bun", "fringe"]
Beard = Literal["none", "stubble", "moustache", "goatee", "full"]

SKINS: tuple[Colour, ...] = (
    (244, 208, 180), (236, 192, 160), (226, 180, 144), (214, 164, 126),
    (196, 146, 108), (170, 120, 84), (140, 94, 64), (112, 74, 52),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (34, 28, 28), (52, 38, 32), (84, 56, 38), (116, 78, 48), (150, 108, 62), (206, 168, 104), (150, 70, 34),
)  # fmt: skip
IRISES: tuple[Colour, ...] = ((70, 44, 28), (92, 60, 34), (104, 96, 52), (72, 104, 84), (74, 112, 150), (108, 122, 134))
GREY: Colour = (206, 204, 202)
DARKEST_SKIN_WITH_FAIR_HAIR = 3  # index into SKINS


@dataclass(frozen=True)
class Subject:
    """The labels a face is drawn from."""

    age: int  # years
    gender: str  # one of contract.spec.GENDERS
    emotion: Mapping[str, float]  # confidences summing to 1


@dataclass(frozen=True)
class Expression:
    """How far each part of the face is moved: 0 at rest, 1 as far as it goes (most also go the other way)."""

    smile: float = 0.0  # corners of the mouth up
    mouth_open: float = 0.0
    mouth_width: float = 0.0
    teeth: float = 0.0
    lip_press: float = 0.0
    sneer: float = 0.0  # upper lip and nostrils up
    one_sided: float = 0.0  # one corner of the mouth drawn up and one brow raised
    brow_raise: float = 0.0
    brow_inner: float = 0.0  # inner ends up (grief, fear), negative: down (anger)
    furrow: float = 0.0  # upright folds between the brows
    eye_open: float = 0.0
    squint: float = 0.0  # lower lids up
    gaze_down: float = 0.0
    tears: float = 0.0


# After the action units of Ekman and Friesen's Facial Action Coding System.
EXPRESSIONS: dict[str, Expression] = {
    "anger": Expression(
        smile=-0.45,
        mouth_width=-0.1,
        lip_press=0.9,
        brow_raise=-0.7,
        brow_inner=-1,
        furrow=1,
        eye_open=0.15,
        squint=0.35,
    ),
    "contempt": Expression(smile=0.05, one_sided=1, eye_open=-0.35, lip_press=0.4),
    "disgust": Expression(
        smile=-0.55, sneer=1, mouth_open=0.12, brow_raise=-0.5, brow_inner=-0.45, furrow=0.6, eye_open=-0.45, squint=0.9
    ),
    "fear": Expression(
        smile=-0.45,
        mouth_open=0.42,
        mouth_width=0.3,
        teeth=0.6,
        brow_raise=0.6,
        brow_inner=0.9,
        furrow=0.4,
        eye_open=0.75,
    ),
    "happiness": Expression(smile=1, mouth_open=0.36, mouth_width=0.45, teeth=1, brow_raise=0.1, squint=0.6),
    "neutral": Expression(),
    "sadness": Expression(
        smile=-0.9, mouth_width=-0.1, brow_raise=-0.1, brow_inner=1, furrow=0.2, eye_open=-0.4, gaze_down=0.6, tears=0.5
    ),
    "surprise": Expression(mouth_open=1, mouth_width=-0.45, brow_raise=1, eye_open=0.85),
}


@dataclass(frozen=True)
class Build:
    """How a person differs from the average, in standard deviations."""

    jaw: float
    length: float
    eyes: float  # their distance and size
    nose: float
    brows: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Build:
        return cls(*np.clip(rng.normal(0, 1, 5), -2, 2).tolist())


@dataclass(frozen=True)
class Appearance:
    """Everything a drawing depends on besides its texture; shares run from 0 to 1."""

    # independent of the labels
    pose: Pose
    skin: Colour
    iris: Colour
    volume: float  # of the hair
    part: float  # where the hair is parted, -1 left to 1 right
    wave: float  # of long hair
    clothes: Colour
    side: int  # -1 or 1: the side of what is one-sided
    build: Build
    light: tuple[float, float]  # direction it comes from, right and down
    light_strength: float
    # following from them
    youth: float  # 1 in the first year, 0 from 18 on
    ageing: float  # 0 until 20, 1 at 75
    male: float  # strength of the adult features of men
    female: float
    expression: Expression
    hair: Colour
    grey: float  # share of grey hairs
    style: HairStyle
    receding: float
    beard: Beard
    lips: Colour
    makeup: float
    glasses: bool
    collar: bool

    @classmethod
    def of(cls, subject: Subject, rng: np.random.Generator) -> Appearance:
        """One of the many people with these labels; from the same generator, only what follows from labels differs."""
        chance, labelled = rng.spawn(2)  # two streams, so that a label's extra draws move nothing else
        tone, skin = _skin(chance)
        fair = tone <= DARKEST_SKIN_WITH_FAIR_HAIR
        natural_hair = shade(HAIRS[chance.integers(len(HAIRS) if fair else 2)], chance.uniform(0.85, 1.2))
        grey = clamp((subject.age - 36) / 32 + float(labelled.normal(0, 0.08)))
        man = subject.gender == "male"
        adult, ageing = clamp((subject.age - 10) / 10), clamp((subject.age - 20) / 55)
        makeup = 0.0 if man or subject.age < 16 else float(labelled.uniform(0.2, 1))
        return cls(
            pose=_pose(chance),
            skin=skin,
            iris=IRISES[chance.integers(len(IRISES) if fair else 2)],
            volume=float(chance.uniform(0.0, 0.16)),
            part=float(chance.uniform(-0.5, 0.5)),
            wave=float(chance.uniform(0, 0.1) * (chance.random() < 0.5)),
            clothes=_clothes(chance),
            side=int(chance.choice((-1, 1))),
            build=Build.random(chance),
            light=(float(chance.uniform(-0.7, 0.7)), float(chance.uniform(-0.8, -0.1))),
            light_strength=float(chance.uniform(0.15, 0.42)),
            youth=clamp((18 - subject.age) / 17),
            ageing=ageing,
            male=adult * man,
            female=(0.35 + 0.65 * adult) * (not man),
            expression=_expression(subject.emotion, labelled),
            hair=mix(natural_hair, GREY, 0.9 * grey),
            grey=grey,
            style=_hair_style(subject, labelled),
            receding=clamp((subject.age - 28) / 45 + float(labelled.normal(0, 0.15))) * (1.0 if man else 0.15),
            beard=_beard(subject, labelled),
            lips=_lips(skin, makeup * float(labelled.random())),
            makeup=makeup,
            glasses=bool(labelled.random() < (0.02 if subject.age < 8 else 0.1 + 0.25 * ageing)),
            collar=bool(labelled.random() < 0.4 * adult * (1 if man else 0.4)),
        )


def _skin(rng: np.random.Generator) -> tuple[int, Colour]:
    tone = int(rng.integers(len(SKINS)))
    neighbour = SKINS[min(tone + 1, len(SKINS) - 1)]
    return tone, mix(SKINS[tone], neighbour, rng.random())


def _pose(rng: np.random.Generator) -> Pose:
    across, down = rng.normal(0, 3.0, 2)
    return Pose(
        yaw_deg=clamp(float(rng.normal(0, 9)), -24, 24),
        pitch_deg=clamp(float(rng.normal(0, 4)), -9, 9),
        roll_deg=clamp(float(rng.normal(0, 5)), -14, 14),
        unit_px=float(SIDE_PX * rng.uniform(0.262, 0.3)),
        centre_px=(SIDE_PX / 2 + float(across), SIDE_PX * 62 / IMAGE_SIDE_PX + float(down)),
    )


def _expression(emotion: Mapping[str, float], rng: np.random.Generator) -> Expression:
    """The expressions of the emotions, mixed by their confidences, with a personal strength."""
    names = [field.name for field in fields(Expression)]
    table = np.array([[getattr(EXPRESSIONS[name], part) for part in names] for name in emotion])
    mixed = np.array(list(emotion.values())) @ table
    mixed = mixed * rng.uniform(0.8, 1.15, len(names)) + rng.normal(0, 0.05, len(names))
    smiles_open = rng.uniform(0.25, 1.15)
    mixed[names.index("mouth_open")] *= smiles_open if emotion["happiness"] > 0.5 else 1
    for part in ("mouth_open", "teeth", "furrow", "sneer", "one_sided", "squint", "lip_press", "tears"):
        mixed[names.index(part)] = max(0.0, mixed[names.index(part)])
    return Expression(**dict(zip(names, mixed.tolist(), strict=True)))


def _hair_style(subject: Subject, rng: np.random.Generator) -> HairStyle:
    man, age = subject.gender == "male", subject.age
    if age <= 2 and rng.random() < 0.75:
        return "wisps"
    unusual = rng.random() < 0.05  # long-haired men, short-haired women
    if man != unusual:
        if man and rng.random() < (age - 30) / 55:
            return "horseshoe" if rng.random() < 0.65 else "bald"
        styles: tuple[HairStyle, ...] = ("crop", "swept", "curls") if age > 9 else ("bowl", "crop", "swept", "curls")
    elif age > 55:
        styles = ("bob", "bob", "bun", "curls", "fringe", "swept")
    else:
        styles = ("long", "long", "fringe", "bob", "bun")
    return styles[rng.integers(len(styles))]


def _beard(subject: Subject, rng: np.random.Generator) -> Beard:
    if subject.gender != "male" or subject.age < 19 or rng.random() < 0.5:
        return "none"
    beards: tuple[Beard, ...] = ("stubble", "stubble", "moustache", "goatee", "full")
    return beards[rng.integers(len(beards))]


def _lips(skin: Colour, lipstick: float) -> Colour:
    bare = shade(mix(skin, (176, 70, 72), 0.45), 0.92)
    return mix(bare, (186, 36, 56), 0.55 * lipstick)


def _clothes(rng: np.random.Generator) -> Colour:
    red, green, blue = rng.integers(25, 225, 3).tolist()
    return mix((red, green, blue), (90, 90, 100), 0.35)
