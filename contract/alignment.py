"""A face in a photo -> canonical image: FFHQ's own crop, from the places of eyes and mouth.

The network learnt from FFHQ's frame, so whatever is brought to it is framed the same way.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.images import CanonicalImage, to_srgb
from contract.spec import IMAGE_SIDE_PX

Points = NDArray[np.floating]  # [..., 2]: x, y in pixels of the upright photo, whose first pixel spans 0 to 1
RIGHT_EYE, LEFT_EYE, NOSE, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER = range(5)  # the subject's right and left

_OVERSAMPLING = 2  # the square is cut out at 2 to 4 times 128 pixels, where it has so many, then resized


def ffhq_square(landmarks: Points) -> tuple[Points, Points]:
    """Return centre [2] and half side [2] of FFHQ's square around a face's five landmarks, [5, 2].

    The half side is the vector from the centre to the middle of the right edge: its length is half the side, its
    direction the face's own horizontal. The formula is that of FFHQ's `download_ffhq.py`.
    """
    eye_to_eye = landmarks[LEFT_EYE] - landmarks[RIGHT_EYE]
    eyes = (landmarks[LEFT_EYE] + landmarks[RIGHT_EYE]) / 2
    eyes_to_mouth = (landmarks[LEFT_MOUTH_CORNER] + landmarks[RIGHT_MOUTH_CORNER]) / 2 - eyes
    direction = eye_to_eye - _quarter_turn(eyes_to_mouth)
    length = max(2.0 * math.hypot(*eye_to_eye), 1.8 * math.hypot(*eyes_to_mouth), 1.0)
    if (norm := math.hypot(*direction)) < 1e-6:  # the eyes would be upside down, or all points one
        direction, norm = np.array([1.0, 0.0]), 1.0
    return eyes + 0.1 * eyes_to_mouth, direction * (length / norm)


def align(photo: Image.Image, landmarks: Points) -> CanonicalImage:
    """Cut FFHQ's square out of an upright photo (mode RGB) as a canonical image, in sRGB.

    What lies outside the photo is filled by reflection, as in FFHQ. Large faces are reduced by averaging first and
    resized with Lanczos last, so that nothing aliases.
    """
    centre, right = ffhq_square(np.asarray(landmarks, np.float64))
    down = _quarter_turn(right)
    side_px = 2 * math.hypot(*right)
    reduction = max(int(side_px / (_OVERSAMPLING * IMAGE_SIDE_PX)), 1)
    region, origin = _region(photo, centre, np.abs(right) + np.abs(down), reduction)
    cut_px = IMAGE_SIDE_PX * max(math.ceil(side_px / reduction / IMAGE_SIDE_PX - 1e-3), 1)
    across, along = 2 * right / reduction / cut_px, 2 * down / reduction / cut_px
    corner = (centre - right - down) / reduction - origin
    matrix = (across[0], along[0], corner[0], across[1], along[1], corner[1])
    cut = region.transform((cut_px, cut_px), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    canonical = cut.resize((IMAGE_SIDE_PX, IMAGE_SIDE_PX), Image.Resampling.LANCZOS)
    canonical.info = photo.info  # which holds the colour profile
    return np.asarray(to_srgb(canonical), np.uint8)


def _region(photo: Image.Image, centre: Points, extent: Points, reduction: int) -> tuple[Image.Image, Points]:
    """The upright rectangle `centre` +- `extent`, reduced, and reflected at the photo's borders.

    Also where its first pixel lies in the reduced photo.
    """
    margin = 3  # pixels that bicubic interpolation reads beyond the edge
    low = np.floor((centre - extent) / reduction).astype(int) - margin
    high = np.ceil((centre + extent) / reduction).astype(int) + margin
    columns, rows = (
        _reflected(np.arange(low[axis], high[axis]), -(-photo.size[axis] // reduction)) for axis in range(2)
    )
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    left, top, right, bottom = (int(edge) * reduction for edge in box)
    box_px = (left, top, min(right, photo.width), min(bottom, photo.height))
    inside = photo.reduce(reduction, box=box_px) if reduction > 1 else photo.crop(box_px)
    if inside.size == (len(columns), len(rows)):
        return inside, low
    reflected = np.asarray(inside)[rows - rows.min()][:, columns - columns.min()]
    return Image.fromarray(reflected), low


def _reflected(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Whole numbers brought into 0 ... length - 1 by mirroring at the first and last."""
    if length == 1:
        return np.zeros_like(index)
    index = index % (2 * length - 2)
    return np.minimum(index, 2 * length - 2 - index)


def _quarter_turn(vector: Points) -> Points:
    """The vector turned by 90 degrees, right to down."""
    return np.array([-vector[1], vector[0]])
