"""Eyes, brows, nose and glasses."""

from __future__ import annotations

import numpy as np

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

_BLACK: Colour = (18, 14, 14)
_WHITE: Colour = (250, 250, 250)


def draw_eyes(canvas: Canvas, a: Appearance, p: Proportions, *, gaze: tuple[float, float]) -> None:
    """Both eyes, looking `gaze` face units to the right and down."""
    for side in (-1, 1):
        _Eye(a, p, side).draw(canvas, gaze)


class _Eye:
    """One eye in its own coordinates: x runs outwards from the pupil at rest."""

    def __init__(self, a: Appearance, p: Proportions, side: int) -> None:
        e = a.expression
        self._a, self._side, self._centre_x, self._width = a, side, p.eye_x, p.eye_width
        open_ = clamp(1 + 0.5 * e.eye_open, 0.4, 1.5)
        self._upper = (0.105 + 0.058 * a.youth + 0.008 * a.female - 0.022 * a.ageing) * open_
        self._lower = (0.06 + 0.018 * a.youth) * clamp(1 - 0.5 * e.squint + 0.25 * max(e.eye_open, 0), 0.3, 1.4)
        self._corner_y = 0.045 * a.ageing - 0.018 - 0.012 * a.female
        w, upper, lower = self._width, self._upper, self._lower
        self._lid = curve(
            [(-w, 0.03), (-0.5 * w, -0.75 * upper), (0.05 * w, -upper), (0.6 * w, -0.72 * upper), (w, self._corner_y)]
        )
        self._under = curve([(w, self._corner_y), (0.45 * w, 0.85 * lower), (-0.3 * w, lower), (-w, 0.03)])

    def draw(self, canvas: Canvas, gaze: tuple[float, float]) -> None:
        opening = np.concatenate((self._place(self._lid), self._place(self._under)))
        canvas.paste(self._ball(gaze).image, mask_of(opening))
        self._draw_lids(canvas)
        if self._a.expression.tears > 0.25:
            w, y = self._width, self._lower
            drop = loop([(0.25 * w, y + 0.02), (0.38 * w, y + 0.13), (0.25 * w, y + 0.18), (0.12 * w, y + 0.13)])
            canvas.fill(self._place(drop), (215, 235, 250), opacity=0.7)

    def _place(self, points: Outline) -> Points:
        return self._a.pose.surface(np.asarray(points) * (self._side, 1) + (self._side * self._centre_x, 0))

    def _ball(self, gaze: tuple[float, float]) -> Canvas:
        """White, iris, pupil and glint, to be seen through the opening."""
        a = self._a
        ball = Canvas.plain(mix((240, 236, 232), a.skin, 0.1 + 0.12 * a.ageing))
        radius = 0.09 + 0.034 * a.youth
        x, y = self._side * gaze[0], gaze[1] - 0.012 + 0.06 * a.expression.gaze_down
        for share, colour in ((1.0, shade(a.iris, 0.45)), (0.86, a.iris), (0.46, _BLACK)):
            ball.fill(self._place(ellipse((x, y), (radius * share, radius * share))), colour)
        light = ellipse((x, y + 0.55 * radius), (0.5 * radius, 0.22 * radius))
        ball.fill(self._place(light), mix(a.iris, _WHITE, 0.45), opacity=0.5)
        shadow_of_lid = np.add(self._place(self._lid), (0, 3))
        ball.stroke(shadow_of_lid, _BLACK, width_px=6, opacity=0.3)
        glint = ellipse((x + self._side * 0.033, y - 0.04), (0.03, 0.03))
        ball.fill(self._place(glint), _WHITE)
        return ball

    def _draw_lids(self, canvas: Canvas) -> None:
        a, w = self._a, self._width
        crease = self._lid * (1.06, 1.0) + (0, 0.015 * a.ageing - 0.048)
        canvas.stroke(self._place(crease), shade(a.skin, 0.55), width_px=2, opacity=0.65)
        canvas.stroke(self._place(self._under), shade(a.skin, 0.58), width_px=2, opacity=0.6)
        lashes = mix(shade(a.skin, 0.3), _BLACK, 0.4 + 0.6 * max(a.makeup, 0.5 * a.youth))
        canvas.stroke(self._place(self._lid), lashes, width_px=2.6 + 2.2 * a.makeup + 0.8 * a.youth, opacity=0.95)
        if a.makeup > 0.3:
            wing = [(0.7 * w, -0.6 * self._upper), (w * 1.18, self._corner_y - 0.05)]
            canvas.stroke(self._place(wing), _BLACK, width_px=3, opacity=0.8)
        if a.ageing > 0.45:  # the lid hangs over the outer corner
            hood = [(-0.2 * w, -self._upper * 1.35), (0.5 * w, -self._upper * 1.15), (1.2 * w, 0.035)]
            canvas.stroke(self._place(curve(hood)), shade(a.skin, 0.6), width_px=2, opacity=0.8 * a.ageing)


def draw_brows(canvas: Canvas, a: Appearance, p: Proportions) -> None:
    e = a.expression
    thick = 0.034 + 0.034 * a.male - 0.006 * a.female + 0.004 * a.build.brows - 0.006 * a.youth - 0.008 * a.ageing
    arch = 0.015 + 0.045 * a.female
    colour = mix(shade(a.hair, 0.72), a.skin, 0.1 + 0.3 * a.youth + 0.2 * a.grey)
    for side in (-1, 1):
        y = p.brow_y - 0.13 * e.brow_raise - (0.14 if side == a.side else -0.02) * e.one_sided
        inner_x, inner_y = 0.17 - 0.035 * e.furrow, y - 0.1 * e.brow_inner
        outer_y = y + 0.045 + 0.05 * max(e.brow_inner, 0) + 0.03 * a.ageing
        top = [
            (inner_x, inner_y - thick),
            (0.38, y - thick - arch - 0.012),
            (0.56, y - arch - thick / 2),
            (0.73, outer_y),
        ]
        base = [(0.55, y - arch + 0.35 * thick), (0.38, y - arch + 0.85 * thick), (inner_x + 0.01, inner_y + thick)]
        outline = np.concatenate((curve(top), curve(base))) * (side, 1)
        canvas.fill(a.pose.surface(outline), colour, opacity=0.88 - 0.25 * a.youth)


def draw_nose(canvas: Canvas, a: Appearance, p: Proportions) -> None:
    e = a.expression
    y = p.nose_y - 0.03 * e.sneer
    w = p.nose_width * (1 + 0.12 * e.sneer + 0.1 * max(e.smile, 0))
    dark = shade(a.skin, 0.5)
    for side in (-1, 1):
        wing = [
            (side * w * 0.7, y - 0.1),
            (side * w, y - 0.02),
            (side * w * 0.92, y + 0.06),
            (side * w * 0.6, y + 0.07),
        ]
        canvas.stroke(a.pose.surface(curve(wing), relief=0.08), dark, width_px=2.2, opacity=0.6)
        nostril = ellipse((side * w * 0.47, y + 0.06), (w * 0.26, 0.024 + 0.008 * e.sneer))
        canvas.fill(a.pose.surface(nostril, relief=0.12), shade(a.skin, 0.3), opacity=0.85)
    under = curve([(-w * 0.28, y + 0.07), (0, y + 0.1), (w * 0.28, y + 0.07)])
    canvas.stroke(a.pose.surface(under, relief=0.14), dark, width_px=2, opacity=0.6)
    shadow_side = -1 if a.light[0] > 0 else 1
    ridge = curve([(shadow_side * 0.1, -0.14), (shadow_side * 0.07, 0.08), (shadow_side * 0.11, y - 0.12)])
    canvas.stroke(a.pose.surface(ridge, relief=0.1), dark, width_px=3, opacity=0.3 * (1 - 0.6 * a.youth))


def draw_glasses(canvas: Canvas, a: Appearance, p: Proportions) -> None:
    frame: Colour = (44, 38, 40)
    for side in (-1, 1):
        rim = a.pose.surface(ellipse((side * p.eye_x, 0.03), (0.29, 0.21)), relief=0.15)
        canvas.fill(rim, (235, 245, 255), opacity=0.1)
        canvas.stroke(np.concatenate((rim, rim[:2])), frame, width_px=3)
        hinge = a.pose.surface([(side * (p.eye_x + 0.28), -0.03)], relief=0.15)
        canvas.stroke(np.concatenate((hinge, a.pose.plane([(side * 1.0, -0.04)]))), frame, width_px=3)
    bridge = curve([(0.28 - p.eye_x, 0.0), (0, -0.05), (p.eye_x - 0.28, 0.0)])
    canvas.stroke(a.pose.surface(bridge, relief=0.2), frame, width_px=3)
