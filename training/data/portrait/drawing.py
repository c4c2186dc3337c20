"""An appearance -> a picture of a face."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from training.data.portrait.appearance import Appearance
from training.data.portrait.canvas import OVERSAMPLING, SIDE_PX, Canvas, enlarged, mask_of, picture_of
from training.data.portrait.features import draw_brows, draw_eyes, draw_glasses, draw_nose
from training.data.portrait.hair import Hair, hair_shape, hair_texture
from training.data.portrait.head import Proportions, draw_body, draw_ears, draw_skin, head_outline
from training.data.portrait.mouth import draw_beard, draw_mouth
from training.data.portrait.wrinkles import draw_wrinkles


def draw_face(a: Appearance, rng: np.random.Generator) -> Image.Image:
    """A picture of 128 x 128 pixels, RGB; the generator decides what appearance leaves open, such as each strand."""
    p = Proportions.of(a)
    canvas = Canvas(_background(rng))
    strands, hair = hair_texture(a, rng), hair_shape(a, p, rng)
    if hair.behind:
        canvas.paste(strands.point(lambda value: value * 0.7), mask_of(*hair.behind))
    draw_body(canvas, a, p)
    draw_ears(canvas, a)
    draw_skin(canvas, a, p, rng)
    draw_wrinkles(canvas, a, p, rng)
    draw_nose(canvas, a, p)
    draw_eyes(canvas, a, p, gaze=(float(rng.normal(0, 0.02)), float(rng.normal(0, 0.006))))
    draw_brows(canvas, a, p)
    scalp = mask_of(head_outline(a, p))
    draw_beard(canvas, a, p, strands, within=scalp)
    draw_mouth(canvas, a, p)
    if hair.before:
        _lay_hair(canvas, hair, strands, scalp)
    if a.glasses:
        draw_glasses(canvas, a, p)
    return _photographed(canvas.image, rng)


def _lay_hair(canvas: Canvas, hair: Hair, strands: Image.Image, scalp: Image.Image) -> None:
    """The hair before the head, after the shadow that it throws."""
    mask = mask_of(*hair.before, opacity=hair.opacity)
    if hair.on_scalp:
        mask = ImageChops.darker(mask, scalp)
    shadow = ImageChops.offset(mask.reduce(OVERSAMPLING), 0, 3).filter(ImageFilter.GaussianBlur(2))
    canvas.paste(Image.new("RGB", mask.size, (30, 18, 14)), enlarged(shadow.point(lambda value: value * 0.35)))
    canvas.paste(strands, mask)


def _background(rng: np.random.Generator) -> Image.Image:
    """Two muted colours running into each other, with blurred patches."""
    ends = rng.uniform(30, 215, (2, 1, 1, 1)) + rng.normal(0, 22, (2, 1, 1, 3))
    across = np.linspace(0, 1, 9).reshape(9, 1, 1)
    patches = rng.normal(0, rng.uniform(2, 26), (9, 9, 1)) + rng.normal(0, 6, (9, 9, 3))
    colours = picture_of(ends[0] * (1 - across) + ends[1] * across + patches)
    out_of_focus = colours.resize((36, 36), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1.6))
    return out_of_focus.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)


def _photographed(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Reduced to its final size, with a camera's white balance, exposure and noise."""
    pixels = np.asarray(drawing.reduce(OVERSAMPLING), np.float32)
    balance = (rng.uniform(0.82, 1.06) * rng.uniform(0.97, 1.03, 3)).astype(np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0.5, 4))
    return picture_of(pixels * balance + noise)
