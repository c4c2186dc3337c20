"""Lips, teeth and beard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from training.data.portrait.appearance import Appearance
from training.data.portrait.canvas import (
    Canvas,
    Colour,
    Outline,
    Points,
    clamp,
    curve,
    ellipse,
    loop,
    mask_of,
    mix,
    shade,
)
from training.data.portrait.head import Proportions

_WHITE: Colour = (250, 250, 250)
_IVORY: Colour = (226, 206, 160)
_GUMS: Colour = (62, 18, 20)
_TONGUE: Colour = (186, 84, 84)
_PARTED = 0.03  # face units between the lips from which on one sees between them


@dataclass(frozen=True)
class _Lips:
    """Heights of the mouth's corners and of the middle of its inner edges, in face units."""

    width: float  # half
    left_y: float
    right_y: float
    upper_y: float
    lower_y: float
    fullness: float
    squareness: float

    @classmethod
    def of(cls, a: Appearance, p: Proportions) -> _Lips:
        e = a.expression
        gap = 0.40 * clamp(e.mouth_open, 0, 1.1) * (1 - 0.2 * a.youth)
        upper_y = p.mouth_y + 0.02 * e.smile - 0.05 * e.sneer - 0.2 * gap
        left, right = (
            p.mouth_y - 0.12 * e.smile - (0.15 if side == a.side else -0.02) * e.one_sided for side in (-1, 1)
        )
        fullness = 0.9 + 0.25 * a.female - 0.1 * a.male + 0.1 * a.youth - 0.35 * a.ageing
        pressed = clamp(1 - 0.6 * e.lip_press, 0.25, 1)
        return cls(p.mouth_width, left, right, upper_y, upper_y + gap, fullness * pressed, 0.25 * e.sneer)

    def edge(self, middle_y: float, *, bulge: float = 0.82, thickness: float = 0.0) -> Points:
        """A curve from the left corner over the middle to the right corner, `thickness` below it."""
        left = self.left_y + (middle_y - self.left_y) * bulge + 0.6 * thickness
        right = self.right_y + (middle_y - self.right_y) * bulge + 0.6 * thickness
        w = self.width
        return curve(
            [(-w, self.left_y), (-0.55 * w, left), (0, middle_y + thickness), (0.55 * w, right), (w, self.right_y)]
        )

    def cupids_bow(self, thickness: float) -> Points:
        """The upper lip's outer edge, from left to right."""
        w, y = self.width, self.upper_y
        left, right = (corner + (y - corner) * 0.85 - 0.5 * thickness for corner in (self.left_y, self.right_y))
        return curve([
            (-w, self.left_y), (-0.62 * w, left), (-0.26 * w, y - thickness), (0, y - 0.72 * thickness),
            (0.26 * w, y - thickness), (0.62 * w, right), (w, self.right_y),
        ])  # fmt: skip


def draw_mouth(canvas: Canvas, a: Appearance, p: Proportions) -> None:
    lips = _Lips.of(a, p)
    upper = lips.edge(lips.upper_y, bulge=0.82 + lips.squareness)
    lower = lips.edge(lips.lower_y)
    thick = 0.105 * lips.fullness

    def place(points: Outline) -> Points:
        return a.pose.surface(points, relief=0.05)

    canvas.fill(place(np.concatenate((upper, lips.cupids_bow(0.72 * thick)[::-1]))), shade(a.lips, 0.84))
    canvas.fill(place(np.concatenate((lower, lips.edge(lips.lower_y, thickness=thick)[::-1]))), a.lips)
    shine = curve([(x * lips.width, lips.lower_y + y * thick) for x, y in ((-0.25, 0.5), (0, 0.58), (0.25, 0.5))])
    canvas.stroke(place(shine), mix(a.lips, _WHITE, 0.5), width_px=3, opacity=0.35)
    parted = lips.lower_y - lips.upper_y > _PARTED
    if parted:
        opening = mask_of(place(np.concatenate((upper, lower[::-1]))))
        canvas.paste(_inside(a, lips, upper).image, opening)
    canvas.stroke(place(upper), shade(a.lips, 0.38), width_px=1.5 if parted else 2.5, opacity=0.9)
    for x, y in ((-lips.width, lips.left_y), (lips.width, lips.right_y)):
        canvas.fill(place(ellipse((x, y), (0.022, 0.016))), shade(a.skin, 0.45), opacity=0.7)


def _inside(a: Appearance, lips: _Lips, upper: Points) -> Canvas:
    """Teeth and tongue, to be seen through the opening."""
    gap, w = lips.lower_y - lips.upper_y, lips.width
    inside = Canvas.plain(_GUMS)
    inside.fill(a.pose.surface(ellipse((0, lips.lower_y + 0.02), (0.55 * w, 0.4 * gap + 0.02))), _TONGUE)
    if a.expression.teeth < 0.2:
        return inside
    height = min(0.13, 0.75 * gap)
    row = np.concatenate((upper - (0, 0.08), upper[::-1] * (0.94, 1) + (0, height)))
    inside.fill(a.pose.surface(row), mix(_WHITE, _IVORY, 0.7 * a.ageing))
    for x in np.linspace(-0.6 * w, 0.6 * w, 7).tolist():
        between = a.pose.surface([(x, lips.upper_y - 0.1), (x, lips.upper_y + height)])
        inside.stroke(between, (150, 130, 120), width_px=1, opacity=0.45)
    return inside


def draw_beard(canvas: Canvas, a: Appearance, p: Proportions, hair: Image.Image, *, within: Image.Image) -> None:
    """A beard of the given hair within the mask of the head; the mouth is drawn over it."""
    if a.beard == "none":
        return
    parts = {
        "moustache": (_moustache(a, p),),
        "goatee": (_moustache(a, p), _chin(p)),
        "full": (_moustache(a, p), _jaw(p)),
        "stubble": (_moustache(a, p), _jaw(p)),
    }[a.beard]
    outlines = (a.pose.surface(part) for part in parts)
    mask = mask_of(*outlines, opacity=0.34 if a.beard == "stubble" else 0.94)
    canvas.paste(hair, ImageChops.darker(mask, within))


def _moustache(a: Appearance, p: Proportions) -> Points:
    y, w, smile = p.mouth_y, p.mouth_width, 0.08 * a.expression.smile
    right = [
        (0, p.nose_y + 0.12), (0.6 * w, y - 0.17), (w + 0.07, y - 0.03 - smile), (w + 0.06, y + 0.06 - smile),
        (0.5 * w, y - 0.07), (0, y - 0.06),
    ]  # fmt: skip
    return loop(np.concatenate((right, np.asarray(right)[-2:0:-1] * (-1, 1))))


def _chin(p: Proportions) -> Points:
    y = p.chin_y
    return loop(
        [(-0.26, y - 0.28), (0, y - 0.26), (0.26, y - 0.28), (0.27, y - 0.06), (0, y + 0.02), (-0.27, y - 0.06)]
    )


def _jaw(p: Proportions) -> Points:
    """A band from one temple around the chin to the other."""
    outer = curve([
        (0.96, 0.02), (0.96, 0.35), (p.jaw_x + 0.04, 0.8), (p.chin_x + 0.15, p.chin_y - 0.19),
        (p.chin_x - 0.05, p.chin_y + 0.02), (0, p.chin_y + 0.05),
    ])  # fmt: skip
    inner = curve([
        (0, p.chin_y - 0.3), (0.28, p.chin_y - 0.34), (p.mouth_width + 0.14, p.mouth_y + 0.1),
        (p.mouth_width + 0.2, p.mouth_y - 0.05), (0.72, 0.45), (0.86, 0.02),
    ])  # fmt: skip
    return np.concatenate((outer, outer[::-1] * (-1, 1), inner[::-1] * (-1, 1), inner))
