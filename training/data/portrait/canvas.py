"""Drawing in face units: the origin lies between the eyes, x to the right, y down, and 1 is half the face's width.

Everything is drawn at twice the size of the result and reduced at the end, which smooths every edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from contract.spec import IMAGE_SIDE_PX

OVERSAMPLING = 2
SIDE_PX = OVERSAMPLING * IMAGE_SIDE_PX
_CURVE_STEPS = 6  # line pieces between two control points: more are not visible at this size
_HEAD_RADII = np.array((1.1, 1.5))  # face units; the ellipsoid whose front carries the features

Points = NDArray[np.float64]  # [n, 2]
Outline = Sequence[tuple[float, float]] | Points
Colour = tuple[int, int, int]
Map = NDArray[np.floating]  # [128, 128], a value for each pixel of the result


@dataclass(frozen=True)
class Pose:
    """Where the head is and how it is turned."""

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    unit_px: float  # pixels of the drawing to a face unit
    centre_px: tuple[float, float]

    def surface(self, points: Outline, relief: float = 0.0) -> Points:
        """Points on the front of the head, or `relief` above it, to pixels of the drawing: yaw and pitch move them."""
        flat = np.asarray(points, np.float64)
        towards_edge = ((flat / _HEAD_RADII) ** 2).sum(1)
        return self._project(flat, np.sqrt(np.maximum(1 - towards_edge, 0)) + relief)

    def plane(self, points: Outline, depth: float = 0.0) -> Points:
        """Points at a given depth, 0 the head's silhouette and 1 its front, to pixels of the drawing."""
        return self._project(np.asarray(points, np.float64), depth)

    def pixel_coordinates(self) -> tuple[Map, Map]:
        """The x and y in face units of each pixel of the result, on the plane of the silhouette."""
        across = np.arange(IMAGE_SIDE_PX, dtype=np.float32) * OVERSAMPLING + OVERSAMPLING / 2
        x, y = (across - self.centre_px[0]) / self.unit_px, (across - self.centre_px[1])[:, None] / self.unit_px
        cos, sin = self._cos_sin_roll
        return x * cos + y * sin, y * cos - x * sin

    def _project(self, flat: Points, depth: float | NDArray[np.float64]) -> Points:
        spatial = np.empty((len(flat), 3))
        spatial[:, :2], spatial[:, 2] = flat, depth
        return spatial @ self._projection + self.centre_px

    @cached_property
    def _cos_sin_roll(self) -> tuple[float, float]:
        roll = np.radians(self.roll_deg)
        return float(np.cos(roll)), float(np.sin(roll))

    @cached_property
    def _projection(self) -> NDArray[np.float64]:  # [3, 2]
        yaw, pitch = np.radians((self.yaw_deg, self.pitch_deg))
        turn = np.array([[np.cos(yaw), 0], [0, np.cos(pitch)], [np.sin(yaw), -np.sin(pitch)]])
        cos, sin = self._cos_sin_roll
        return turn @ np.array([[cos, sin], [-sin, cos]]) * self.unit_px


class Canvas:
    """A drawing in progress; all points are pixels of it, as Pose gives them."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image, "RGBA")

    @classmethod
    def plain(cls, colour: Colour) -> Canvas:
        return cls(Image.new("RGB", (SIDE_PX, SIDE_PX), colour))

    def fill(self, points: Points, colour: Colour, opacity: float = 1.0) -> None:
        self._draw.polygon(_pairs(points), fill=(*colour, round(255 * opacity)))

    def stroke(self, points: Points, colour: Colour, *, width_px: float, opacity: float = 1.0) -> None:
        self._draw.line(_pairs(points), fill=(*colour, round(255 * opacity)), width=max(1, round(width_px)))

    def paste(self, layer: Image.Image, mask: Image.Image) -> None:
        if box := mask.getbbox():  # an eye is a hundredth of the picture
            self.image.paste(layer.crop(box), box, mask.crop(box))

    def multiply(self, factors: Image.Image, mask: Image.Image) -> None:
        """Light or darken what `mask` covers: a factor of 128 changes nothing, 64 halves, 255 doubles."""
        lit = np.asarray(self.image, np.uint16) * np.asarray(factors, np.uint16) >> 7
        self.paste(Image.fromarray(np.minimum(lit, 255).astype(np.uint8)), mask)


def mask_of(*outlines: Points, opacity: float = 1.0) -> Image.Image:
    """`opacity` inside the outlines, nothing outside."""
    mask = Image.new("L", (SIDE_PX, SIDE_PX))
    draw = ImageDraw.Draw(mask)
    for points in outlines:
        draw.polygon(_pairs(points), fill=round(255 * opacity))
    return mask


def enlarged(picture: Image.Image) -> Image.Image:
    """A picture of the result's size at the drawing's; the last step reduces it again, so pixels are just repeated."""
    return picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST)


def picture_of(values: NDArray[np.floating]) -> Image.Image:
    """Values of 0 to 255, [height, width] or [height, width, 3], as a picture."""
    return Image.fromarray(np.minimum(np.maximum(values, 0), 255).astype(np.uint8))


def curve(points: Outline) -> Points:
    """An open smooth curve through the points (Catmull-Rom spline)."""
    points = np.asarray(points, np.float64)
    padded = np.concatenate((2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]))
    return np.concatenate((_spline(padded), points[-1:]))


def loop(points: Outline) -> Points:
    """A closed smooth curve through the points."""
    points = np.asarray(points, np.float64)
    return _spline(np.concatenate((points[-1:], points, points[:2])))


def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> Points:
    return _circle() * radii + centre


def mirrored(points: Outline) -> Points:
    """A right half, given from top to bottom, completed by its reflection into a closed outline."""
    right = np.asarray(points, np.float64)
    left = right[::-1] * (-1, 1)
    return np.concatenate((right, left[left[:, 0] != 0]))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(x * factor)) for x in colour)
    return red, green, blue


def clamp(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return min(max(value, low), high)


def _spline(points: Points) -> Points:
    pieces = np.stack([points[i : len(points) - 3 + i] for i in range(4)], 1)  # [pieces, 4, 2]
    return (_catmull_rom() @ pieces).reshape(-1, 2)


@cache
def _catmull_rom() -> Points:
    t = np.arange(_CURVE_STEPS)[:, None] / _CURVE_STEPS
    basis = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    weights: Points = np.concatenate((t**0, t, t**2, t**3), 1) @ basis
    return weights


@cache
def _circle() -> Points:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack((np.cos(angle), np.sin(angle)), 1)


def _pairs(points: Points) -> list[tuple[float, float]]:
    return list(map(tuple, points.tolist()))
