"""Folds, wrinkles and spots: what age writes and what an expression adds."""

from __future__ import annotations

import numpy as np

from training.data.portrait.appearance import Appearance
from training.data.portrait.canvas import Canvas, Outline, curve, ellipse, shade
from training.data.portrait.head import Proportions

_FAINTEST = 0.03  # of a fold's strength, from 0 to 1: less is not drawn


def draw_wrinkles(canvas: Canvas, a: Appearance, p: Proportions, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        _draw_mouth_folds(canvas, a, p, side)
        _draw_eye_folds(canvas, a, p, side)
        _draw_frown(canvas, a, side)
    _draw_forehead_lines(canvas, a, rng)
    if a.ageing > 0.6:
        _draw_age_spots(canvas, a, rng)


def _draw_mouth_folds(canvas: Canvas, a: Appearance, p: Proportions, side: int) -> None:
    smile = max(a.expression.smile, 0)
    wide, y = p.mouth_width, p.mouth_y
    nasolabial = [
        (side * (p.nose_width + 0.05), p.nose_y - 0.06),
        (side * (p.nose_width + 0.16 + 0.05 * smile), p.nose_y + 0.13),
        (side * (wide + 0.1 + 0.04 * smile), y - 0.03),
    ]
    _fold(canvas, a, nasolabial, 0.06 + 0.65 * a.ageing + 0.3 * smile * (1 - 0.5 * a.youth))
    marionette = [(side * (wide + 0.03), y + 0.08), (side * (wide + 0.07), y + 0.2), (side * (wide + 0.04), y + 0.32)]
    _fold(canvas, a, marionette, 0.9 * a.ageing - 0.22)


def _draw_eye_folds(canvas: Canvas, a: Appearance, p: Proportions, side: int) -> None:
    e = a.expression
    bag = [(side * (p.eye_x - 0.16), 0.1), (side * p.eye_x, 0.19), (side * (p.eye_x + 0.17), 0.12)]
    _fold(canvas, a, bag, 0.06 + 0.65 * a.ageing + 0.15 * e.squint)
    x = p.eye_x + p.eye_width + 0.06
    for rise in (-0.11, -0.02, 0.07):  # crow's feet
        line = [(side * x, rise * 0.3), (side * (x + 0.08), rise * 0.75), (side * (x + 0.15), rise * 1.5)]
        _fold(canvas, a, line, 0.7 * a.ageing + 0.35 * max(e.smile, 0) * a.ageing - 0.15)


def _draw_frown(canvas: Canvas, a: Appearance, side: int) -> None:
    e = a.expression
    upright = [(side * 0.075, -0.34), (side * 0.055, -0.24), (side * 0.07, -0.13)]
    _fold(canvas, a, upright, 0.7 * e.furrow + 0.35 * a.ageing - 0.1)
    if e.sneer > 0.3:  # across the root of the nose
        _fold(canvas, a, [(side * 0.05, -0.02), (side * 0.12, 0.04), (side * 0.15, 0.14)], 0.6 * e.sneer)


def _draw_forehead_lines(canvas: Canvas, a: Appearance, rng: np.random.Generator) -> None:
    strength = max(a.ageing - 0.15, 0.45 * a.expression.brow_raise * (1 - a.youth))
    for k, waver in enumerate(rng.normal(0, 0.012, 3).tolist()):
        y, reach = -0.53 - 0.14 * k + waver, 0.5 - 0.07 * k
        line = [(-reach, y + 0.03), (-0.2, y - 0.015), (0.05, y + 0.01), (0.25, y - 0.015), (reach, y + 0.03)]
        _fold(canvas, a, line, strength * (1 - 0.15 * k))


def _fold(canvas: Canvas, a: Appearance, points: Outline, strength: float) -> None:
    """A dark line with the lit ridge under it."""
    if strength < _FAINTEST:
        return
    line = a.pose.surface(curve(points))
    opacity = min(strength, 0.9)
    canvas.stroke(np.add(line, (0, 2)), shade(a.skin, 1.25), width_px=2, opacity=0.45 * opacity)
    canvas.stroke(line, shade(a.skin, 0.48), width_px=1 + 1.6 * opacity, opacity=0.75 * opacity)


def _draw_age_spots(canvas: Canvas, a: Appearance, rng: np.random.Generator) -> None:
    for _ in range(round(14 * a.ageing)):
        x, y = float(rng.uniform(-0.7, 0.7)), float(rng.choice((-0.75, 0.4)) + rng.normal(0, 0.12))
        radius = float(rng.uniform(0.015, 0.035))
        canvas.fill(a.pose.surface(ellipse((x, y), (radius, radius * 0.8))), shade(a.skin, 0.68), opacity=0.5)
