"""Augmentation of a whole batch on its device, with parameters of its own for every face.

The published settings: horizontal flip, rotation of up to 10 degrees, colour jitter (0.2, 0.2, 0.2, 0.1). Brightness,
contrast, saturation and hue are each affine in RGB, so all four are one 3x4 matrix a face (hue as a rotation in YIQ);
flip, rotation, zoom and shift are one resampling. A general library (kornia 0.9) took 18 times as long on two cores.

Chance comes from outside, as eleven uniform numbers a face, so that what happens to a face does not depend on how many
devices share its batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# NTSC: RGB -> YIQ (luma, in-phase, quadrature), FCC 47 CFR 73.682 (a)(20).
_RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])

TURN_DRAWS, BLUR_DRAWS, JITTER_DRAWS = 5, 1, 5
DRAWS = TURN_DRAWS + BLUR_DRAWS + JITTER_DRAWS  # uniform numbers that a face needs
BLUR_PX = 3  # side of the square that a blurred pixel is the mean of


@dataclass(frozen=True)
class Augmentation:
    """How far each face may be changed; a field of 0 turns its part off."""

    flip_probability: float = 0.5
    rotation_degrees: float = 10.0
    brightness: float = 0.2  # factor within 1 +/- this
    contrast: float = 0.2  # factor within 1 +/- this, about the face's mean luma
    saturation: float = 0.2  # factor within 1 +/- this
    hue: float = 0.1  # of a full turn, either way
    zoom: float = 0.0  # closer or wider by a factor of up to 1 + this: datasets crop faces differently
    shift: float = 0.0  # of the side, in either direction
    grey_probability: float = 0.0
    blur_probability: float = 0.0  # of a blur of random strength: datasets differ in sharpness
    outside: Literal["zeros", "reflection"] = "zeros"  # what a turned face shows from outside its picture

    def __call__(self, faces: Tensor, draws: Tensor, *, side_px: int) -> Tensor:
        """Change each face of float32 [B, 3, S, S] in 0..1 and return them as [B, 3, side_px, side_px].

        `draws` are uniform in 0..1, [B, DRAWS]. `side_px` is at most S: the one resampling also shrinks. At
        S / 2 it takes the mean of every four pixels of a face that is not turned.
        """
        turn, blur, jitter = torch.split(draws, [TURN_DRAWS, BLUR_DRAWS, JITTER_DRAWS], 1)
        return self.jitter(self.blur(self.turn(faces, turn, side_px=side_px), blur), jitter)

    def turn(self, faces: Tensor, draws: Tensor, *, side_px: int) -> Tensor:
        """Flip, rotate and zoom about the centre, shift, and shrink."""
        flip, turn, zoom, right, down = draws.unbind(1)
        mirror = 1 - 2 * (flip < self.flip_probability).float()
        angle = _within(turn, math.radians(self.rotation_degrees))
        scale = _within(zoom, math.log1p(self.zoom)).exp()
        x, y = (_within(draw, 2 * self.shift) for draw in (right, down))  # the grid is 2 wide
        cos, sin = scale * angle.cos(), scale * angle.sin()
        theta = torch.stack([cos * mirror, -sin, x, sin * mirror, cos, y], 1).view(-1, 2, 3)
        grid = F.affine_grid(theta, [*faces.shape[:2], side_px, side_px], align_corners=False)
        return F.grid_sample(faces, grid, padding_mode=self.outside, align_corners=False)

    def blur(self, faces: Tensor, draws: Tensor) -> Tensor:
        """Mix some faces with their own blur, by a share of up to all of it."""
        if not self.blur_probability:
            return faces
        share = (1 - draws / self.blur_probability).clamp(min=0).view(-1, 1, 1, 1)
        blurred = F.avg_pool2d(faces, BLUR_PX, 1, BLUR_PX // 2, count_include_pad=False)
        return torch.lerp(faces, blurred, share)

    def jitter(self, faces: Tensor, draws: Tensor) -> Tensor:
        """Change brightness, contrast, saturation and hue; some faces to grey."""
        count, device = len(faces), faces.device
        to_yiq, to_rgb = _colour_spaces(device)
        bright, contrasted, saturated, grey, hue = draws.unbind(1)
        brightness = 1 + _within(bright, self.brightness)
        contrast = 1 + _within(contrasted, self.contrast)
        saturation = (1 + _within(saturated, self.saturation)) * (grey >= self.grey_probability)
        angle = _within(hue, 2 * math.pi * self.hue)
        chroma = torch.zeros(count, 3, 3, device=device)
        chroma[:, 0, 0] = 1
        chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * angle.cos()
        chroma[:, 2, 1] = saturation * angle.sin()
        chroma[:, 1, 2] = -chroma[:, 2, 1]
        matrix = (brightness * contrast)[:, None, None] * (to_rgb @ chroma @ to_yiq)
        # Contrast is about the brightened face's mean luma, which saturation and hue leave as it is.
        luma = brightness * (faces.mean((2, 3)) @ to_yiq[0])
        offset = ((1 - contrast) * luma).view(count, 1, 1).expand(count, 3, 1)
        return torch.baddbmm(offset, matrix, faces.flatten(2)).clamp(0, 1).view_as(faces)


@cache
def _colour_spaces(device: torch.device) -> tuple[Tensor, Tensor]:
    """RGB -> YIQ and back, copied and inverted once: on a GPU both wait for the device."""
    return _RGB_TO_YIQ.to(device), torch.linalg.inv(_RGB_TO_YIQ).to(device)


def _within(draw: Tensor, limit: float) -> Tensor:
    """Uniform in 0..1 -> uniform in -limit..limit."""
    return (2 * draw - 1) * limit
