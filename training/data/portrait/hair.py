"""Hair: its texture, the part behind the head and the part before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from contract.spec import IMAGE_SIDE_PX
from training.data.portrait.appearance import Appearance
from training.data.portrait.canvas import Map, Outline, Points, curve, ellipse, enlarged, loop, mirrored, picture_of
from training.data.portrait.head import Proportions

_STRANDS = 420  # around the crown


@dataclass(frozen=True)
class Hair:
    """Outlines in pixels of the drawing; either tuple may be empty."""

    behind: tuple[Points, ...] = ()
    before: tuple[Points, ...] = ()
    opacity: float = 1.0
    on_scalp: bool = False  # too thin to stand out from the head


def hair_texture(a: Appearance, rng: np.random.Generator) -> Image.Image:
    """A picture filled with hair: strands that run out from the crown, or curls."""
    light, sheen = _curls(rng) if a.style == "curls" else _strands(a, rng)
    light = light + rng.standard_normal(light.shape, np.float32) * 0.05
    return enlarged(picture_of(light[:, :, None] * np.asarray(a.hair, np.float32) + sheen[:, :, None]))


def _curls(rng: np.random.Generator) -> tuple[Map, Map]:
    coils = picture_of(rng.uniform(84, 150, (56, 56))).resize((IMAGE_SIDE_PX, IMAGE_SIDE_PX), Image.Resampling.BICUBIC)
    light = np.asarray(coils, np.float32) / 128
    return light, 30 * np.maximum(light - 0.95, 0)


def _strands(a: Appearance, rng: np.random.Generator) -> tuple[Map, Map]:
    """Brightness of each strand, and the band of light across them."""
    x, y = a.pose.pixel_coordinates()
    strands = np.convolve(rng.normal(0, 1, _STRANDS), (0.25, 0.5, 0.25), "same").astype(np.float32)
    angle = np.arctan2(x - 0.6 * a.part, y + 1.5) / np.pi + 1
    index = (angle * _STRANDS / 2 + 2 * np.sin(4 * y)).astype(np.int64) % _STRANDS
    distance = np.hypot(x - 0.35 * a.light[0], y + 0.35)
    band = np.exp(-(((distance - 0.78) / 0.2) ** 2)) * (1 + 0.5 * strands[index])
    return 0.9 + 0.16 * strands[index] + 0.18 * band - 0.1 * np.clip(y, 0, 2), 16 * band


def hair_shape(a: Appearance, p: Proportions, rng: np.random.Generator) -> Hair:
    if a.style == "bald":
        return Hair()
    if a.style == "wisps":
        cap = a.pose.surface(_cap(a, p, side_y=-0.5, forehead_y=-1.0, lift=0.0))
        return Hair(before=(cap,), opacity=0.5, on_scalp=True)
    if a.style == "horseshoe":
        patch = loop([(1.02, 0.04), (1.07, -0.28), (1.04, -0.6), (0.94, -0.7), (0.9, -0.45), (0.94, -0.1)])
        return Hair(before=tuple(a.pose.surface(patch * (side, 1)) for side in (-1, 1)), opacity=0.95)
    if a.style in ("crop", "swept", "curls", "bowl"):
        return _short(a, p, rng)
    return _long(a, p)


def _short(a: Appearance, p: Proportions, rng: np.random.Generator) -> Hair:
    forehead_y, more, side_y = {
        "crop": (-0.92, 0.0, 0.0),
        "swept": (-0.86, 0.06, 0.0),
        "curls": (-0.84, 0.08, 0.0),
        "bowl": (-0.5, 0.05, 0.12),
    }[a.style]
    lift = a.volume + more
    cap = a.pose.surface(_cap(a, p, side_y=side_y, forehead_y=forehead_y, lift=lift))
    behind = a.pose.plane(ellipse((0, -0.36), (1.02, 1.0)))  # closes the gap that a turned head leaves beside the cap
    if a.style != "curls":
        return Hair((behind,), (cap,))
    angles = np.linspace(-0.97 * np.pi, -0.03 * np.pi, 15) + rng.normal(0, 0.04, 15)
    centres = np.stack(((1.0 + 0.3 * lift) * np.cos(angles), (0.98 + lift) * np.sin(angles) - 0.36), 1)
    coils = (a.pose.plane(ellipse((x, y), (0.22, 0.2))) for x, y in centres.tolist())
    return Hair((behind,), (cap, *coils))


def _cap(a: Appearance, p: Proportions, *, side_y: float, forehead_y: float, lift: float) -> Points:
    """Short hair: the skull's outline outside, the hairline inside, which recedes at the temples first."""
    forehead = forehead_y - 0.25 * a.receding
    temple = forehead - 0.2 * a.receding + 0.02
    temple_y = -0.5 - 0.2 * a.receding
    sweep = 0.14 * a.part if a.style in ("swept", "crop") else 0.0
    outer = [
        (0.98, side_y - 0.04), (1.06, -0.35), (1.01 + 0.4 * lift, -0.75),
        (0.62 + 0.3 * lift, p.crown_y + 0.06 - 0.8 * lift), (0, p.crown_y - 0.07 - lift),
    ]  # fmt: skip
    inner = [
        (-0.95, side_y), (-0.92, -0.3), (-0.85, temple_y), (-0.66, temple + sweep), (-0.3, forehead + 0.03 - sweep),
        (0, forehead + 0.04 * a.receding), (0.3, forehead + 0.03 + sweep), (0.66, temple - sweep), (0.85, temple_y),
        (0.92, -0.3), (0.95, side_y),
    ]  # fmt: skip
    over = np.concatenate((outer, np.asarray(outer)[-2::-1] * (-1, 1)))
    return np.concatenate((curve(over), curve(inner)))


def _long(a: Appearance, p: Proportions) -> Hair:
    top = p.crown_y - 0.07 - a.volume
    end_y = {"long": 2.6, "fringe": 2.2, "bob": 0.95, "bun": 0.1}[a.style]
    wide = 1.04 if a.style == "bun" else 1.16 + a.volume
    half = [
        (0, top), (0.62, top + 0.1), (1.0 + a.volume, -0.85), (wide, -0.2), (wide + 0.05, 0.35 * end_y),
        (wide + 0.02, 0.7 * end_y), (wide * 0.94, end_y - 0.06), (0.7, end_y), (0, end_y),
    ]  # fmt: skip
    behind = [a.pose.plane(loop(_waved(a, mirrored(half))))]
    if a.style == "bun":
        behind.insert(0, a.pose.plane(ellipse((0.3 * a.part, p.crown_y - 0.16), (0.42, 0.3))))
    if a.style == "fringe":
        return Hair(tuple(behind), (a.pose.surface(_fringe(a, top, min(end_y, 0.9))),))
    curtains = (_curtain(a, top=top, end_y=min(end_y, 1.5), wide=wide, side=side) for side in (-1, 1))
    return Hair(tuple(behind), tuple(a.pose.surface(curtain) for curtain in curtains))


def _curtain(a: Appearance, *, top: float, end_y: float, wide: float, side: int) -> Points:
    """One half of parted hair: from the part over the temple and down beside the face."""
    part = 0.7 * side * a.part  # as seen from this side, whose x runs outwards
    edge = 0.97 if a.style == "bun" else 0.93
    inner = [
        (part, top + 0.32), (part + (0.62 - part) * 0.6, -0.86), (0.82, -0.5), (edge, 0.0), (edge, end_y * 0.5),
        (edge + 0.06, end_y),
    ]  # fmt: skip
    outer = [
        (wide - 0.02, end_y - 0.03), (wide + 0.03, 0.35 * end_y), (wide - 0.03, -0.4), (0.97 + 0.5 * a.volume, -0.9),
        (0.6, top + 0.1), (part, top),
    ]  # fmt: skip
    return np.concatenate((curve(_waved(a, inner)), curve(_waved(a, outer)))) * (side, 1)


def _fringe(a: Appearance, top: float, end_y: float) -> Points:
    wide = 1.1 + 0.5 * a.volume
    right = [
        (0, top), (0.62, top + 0.1), (1.0 + a.volume, -0.8), (wide, -0.2), (wide, end_y), (0.97, end_y), (0.93, 0.1),
        (0.84, -0.36), (0.5, -0.44), (0, -0.47),
    ]  # fmt: skip
    return loop(_waved(a, mirrored(right)))


def _waved(a: Appearance, points: Outline) -> Points:
    """Points below the temples moved in and out, as wavy hair falls."""
    waved = np.array(points, np.float64)
    below = np.clip(waved[:, 1] + 0.3, 0, 0.6)
    waved[:, 0] *= 1 + a.wave * below * np.sin(5.5 * waved[:, 1])
    return waved
