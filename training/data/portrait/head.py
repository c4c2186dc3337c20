"""Head, ears, neck and clothes: proportions by age and gender, skin with its light and texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from contract.spec import IMAGE_SIDE_PX
from training.data.portrait.appearance import Appearance
from training.data.portrait.canvas import (
    OVERSAMPLING,
    Canvas,
    Colour,
    Map,
    Points,
    curve,
    ellipse,
    enlarged,
    loop,
    mask_of,
    mirrored,
    mix,
    picture_of,
    shade,
)

_NEUTRAL = 128  # the factor that changes nothing, see Canvas.multiply


@dataclass(frozen=True)
class Proportions:
    """Where the parts of a face are, in face units (see canvas): children have low, small features and large eyes."""

    crown_y: float
    chin_y: float
    chin_x: float
    jaw_x: float
    cheek_x: float
    eye_x: float
    eye_width: float  # half
    brow_y: float
    nose_y: float
    nose_width: float  # half
    mouth_y: float
    mouth_width: float  # half

    @classmethod
    def of(cls, a: Appearance) -> Proportions:
        e = a.expression
        return cls(
            crown_y=-1.36 - 0.14 * a.youth,
            chin_y=1.31
            + 0.035 * a.build.length
            - 0.21 * a.youth
            + 0.05 * a.male
            - 0.02 * a.female
            + 0.12 * e.mouth_open,
            chin_x=0.37 + 0.16 * a.male - 0.03 * a.female + 0.12 * a.youth + 0.02 * a.build.jaw,
            jaw_x=0.75 + 0.10 * a.male + 0.14 * a.youth + 0.07 * a.ageing + 0.025 * a.build.jaw,
            cheek_x=0.93 + 0.07 * a.youth,
            eye_x=0.40 + 0.02 * a.youth + 0.012 * a.build.eyes,
            eye_width=0.195 + 0.008 * a.build.eyes + 0.085 * a.youth + 0.012 * a.female - 0.012 * a.ageing,
            brow_y=-0.28 - 0.03 * a.youth + 0.045 * a.male - 0.03 * a.female + 0.01 * a.build.brows,
            nose_y=0.45 - 0.13 * a.youth + 0.05 * a.ageing,
            nose_width=0.17 - 0.035 * a.youth + 0.025 * a.male + 0.02 * a.ageing + 0.012 * a.build.nose,
            mouth_y=0.80 - 0.13 * a.youth + 0.02 * a.ageing,
            mouth_width=(0.36 - 0.10 * a.youth + 0.02 * a.male) * (1 + 0.32 * e.mouth_width),
        )


def head_outline(a: Appearance, p: Proportions) -> Points:
    """Pixels of the silhouette without hair."""
    half = [
        (0, p.crown_y), (0.52, p.crown_y + 0.13), (0.87, p.crown_y + 0.52), (0.97, -0.32), (p.cheek_x + 0.02, 0.12),
        (p.cheek_x - 0.02, 0.42), (p.jaw_x, 0.80 - 0.10 * a.youth), (p.chin_x + 0.13, p.chin_y - 0.21),
        (p.chin_x - 0.10, p.chin_y - 0.04), (0, p.chin_y),
    ]  # fmt: skip
    return a.pose.plane(loop(mirrored(half)))


def draw_body(canvas: Canvas, a: Appearance, p: Proportions) -> None:
    """Neck and clothes."""
    width = 0.52 + 0.16 * a.male - 0.10 * a.youth + 0.03 * a.ageing
    base = p.chin_y + 0.36
    neck = [
        (0, p.chin_y - 0.5),
        (width, p.chin_y - 0.4),
        (width, base - 0.1),
        (width + 0.3, base + 0.2),
        (0, base + 0.5),
    ]
    canvas.fill(a.pose.plane(mirrored(neck)), shade(a.skin, 0.72))
    for drop, opacity in ((0.2, 0.25), (0.13, 0.25), (0.06, 0.3)):  # the chin's shadow, softer farther down
        shadow = [(0, p.chin_y - 0.4), (width, p.chin_y - 0.4), (width * 0.93, p.chin_y - 0.14), (0, p.chin_y + drop)]
        canvas.fill(a.pose.plane(mirrored(shadow)), shade(a.skin, 0.45), opacity)
    shoulder = 1.75 + 0.25 * a.male - 0.35 * a.youth
    dip = 0.02 if a.collar else 0.3 - 0.15 * a.male
    half = [
        (0, base + dip), (width * 0.75, base + dip * 0.55), (width + 0.16, base - 0.06), (shoulder * 0.7, base + 0.16),
        (shoulder, base + 0.42), (shoulder + 0.5, base + 2), (0, base + 2),
    ]  # fmt: skip
    canvas.fill(a.pose.plane(mirrored(half)), a.clothes)
    seam = a.pose.plane(np.concatenate((np.asarray(half[2::-1]) * (-1, 1), half[1:3])))
    canvas.stroke(seam, shade(a.clothes, 0.7), width_px=4, opacity=0.7)
    if a.collar:
        _draw_collar(canvas, a, width, base)


def _draw_collar(canvas: Canvas, a: Appearance, width: float, base: float) -> None:
    right = [(0, base + 0.1), (width + 0.12, base - 0.18), (width + 0.2, base + 0.08), (0.32, base + 0.5)]
    for side in (-1, 1):
        flap = a.pose.plane(np.asarray(right) * (side, 1))
        canvas.fill(flap, mix(a.clothes, (245, 245, 245), 0.6))
        canvas.stroke(flap, shade(a.clothes, 0.6), width_px=2, opacity=0.5)


def draw_ears(canvas: Canvas, a: Appearance) -> None:
    size = 1 + 0.15 * a.ageing + 0.05 * a.male
    for side in (-1, 1):
        lobe = ellipse((side * 0.98, 0.12), (0.13 * size, 0.25 * size))
        canvas.fill(a.pose.plane(lobe, depth=-0.25), shade(a.skin, 0.88))
        hollow = curve([(side * 1.0, -0.03), (side * 1.06, 0.06), (side * 1.04, 0.2), (side * 0.98, 0.26)])
        canvas.stroke(a.pose.plane(hollow, depth=-0.25), shade(a.skin, 0.6), width_px=3, opacity=0.7)


def draw_skin(canvas: Canvas, a: Appearance, p: Proportions, rng: np.random.Generator) -> None:
    """The head's surface: light from one side, soft hollows and heights, the skin's own texture."""
    outline = head_outline(a, p)
    canvas.fill(outline, a.skin)
    factors = picture_of(_NEUTRAL * (_lambert(a) + _texture(a, rng))).convert("RGB")
    _paint_relief(ImageDraw.Draw(factors, "RGBA"), a, p)
    canvas.multiply(enlarged(factors.filter(ImageFilter.GaussianBlur(1.9))), mask_of(outline))


def _lambert(a: Appearance) -> Map:
    """Brightness of an ellipsoid under the light, 1 on average, darker towards its edge."""
    x, y = a.pose.pixel_coordinates()
    normal_x, normal_y = x / 1.12, (y - 0.05) / 1.6
    normal_z = np.sqrt(np.maximum(1 - normal_x**2 - normal_y**2, 0.02))
    facing = normal_x * a.light[0] + normal_y * a.light[1] + normal_z * 0.9
    return 1.02 + a.light_strength * 1.25 * (facing - 0.85) - 0.2 * (1 - normal_z) ** 2


def _texture(a: Appearance, rng: np.random.Generator) -> Map:
    """Deviation of the brightness: smooth in children, uneven in the old."""
    fine = rng.standard_normal((IMAGE_SIDE_PX, IMAGE_SIDE_PX), np.float32) * (0.02 + 0.09 * a.ageing)
    blotches = picture_of(_NEUTRAL + rng.normal(0, 10 + 30 * a.ageing, (20, 20)))
    coarse = np.asarray(blotches.resize((IMAGE_SIDE_PX, IMAGE_SIDE_PX), Image.Resampling.BILINEAR), np.float32)
    return fine + (coarse - _NEUTRAL) / 1000


def _paint_relief(draw: ImageDraw.ImageDraw, a: Appearance, p: Proportions) -> None:
    """Hollows and heights on the map of factors, which is blurred afterwards: shading without edges."""

    def paint(x: float, y: float, radii: tuple[float, float], factor: Colour, opacity: float) -> None:
        points = a.pose.surface(ellipse((x, y), radii)) / OVERSAMPLING
        draw.polygon(list(map(tuple, points.tolist())), fill=(*factor, round(255 * min(opacity, 1))))

    e = a.expression
    smile = max(e.smile, 0)
    flush = 0.22 + 0.16 * a.youth + 0.1 * a.makeup
    for side in (-1, 1):
        paint(side * p.eye_x * 0.98, -0.08, (0.29, 0.2), (80, 68, 72), 0.36 + 0.14 * a.ageing)  # socket
        paint(side * 0.135, 0.02, (0.07, 0.27), (74, 66, 68), 0.5 - 0.2 * a.youth)  # beside the nose
        paint(side * 0.56, 0.43, (0.23, 0.18), (158, 112, 110), flush)  # cheek
        paint(side * 0.52, 0.31 - 0.05 * smile, (0.17, 0.08), (166, 162, 158), 0.35 + 0.3 * smile)  # cheekbone
        paint(side * 0.73, 0.74, (0.14, 0.26), (80, 74, 76), (0.3 + 0.4 * a.ageing) * (1 - a.youth))  # under it
        paint(side * p.eye_x, 0.2, (0.17, 0.055), (84, 72, 82), 0.12 + 0.7 * a.ageing)  # bag under the eye
        paint(side * 0.36, -0.35, (0.26, 0.06), (158, 156, 152), 0.3 * a.male + 0.1)  # brow ridge
    paint(0, -0.68, (0.44, 0.2), (158, 155, 150), 0.5)  # forehead
    paint(0, 0.08, (0.055, 0.28), (176, 172, 166), 0.7 - 0.25 * a.youth)  # ridge of the nose
    paint(0, p.nose_y - 0.05, (0.085, 0.075), (190, 182, 176), 0.75)  # its tip
    paint(0, p.nose_y + 0.12, (0.16, 0.05), (74, 64, 66), 0.65)  # under it
    paint(0, p.mouth_y + 0.18 + 0.24 * e.mouth_open, (0.2, 0.045), (70, 64, 66), 0.6)  # under the lip
    paint(0, p.chin_y - 0.17, (0.18, 0.11), (160, 154, 150), 0.55)  # chin
