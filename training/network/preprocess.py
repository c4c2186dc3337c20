"""From canonical images to the network's input: as the exported graph does it, and as training does.

Both cast, scale to 0..1, resize and normalise with the code of `Preprocess`. Training changes the order and the memory
layout for speed, augments in between, and may begin at lower resolutions; a test holds the two equal to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.spec import IMAGE_SIDE_PX
from training.network.model import MAX_RESOLUTION, MIN_RESOLUTION

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """uint8 [B, 128, 128, 3] -> float32 [B, 3, R, R]: cast, bilinear upsampling, ImageNet normalisation.

    Raises ValueError for a resolution that the served graph could not reach well.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
            raise ValueError(
                f"resolution {resolution} is outside {MIN_RESOLUTION}-{MAX_RESOLUTION}: below, the served graph would "
                "downscale without antialiasing; above, it would only blur"
            )
        self.resolution = resolution
        # Buffers, so that they follow the module to a device and become constants of the exported graph.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # TensorRT wants a uint8 input to feed a Cast directly; without contiguous() the exporter emits as_strided.
        faces = images.float().permute(0, 3, 1, 2).contiguous() / 255
        return self.normalise(resize(faces, self.resolution))

    def normalise(self, faces: Tensor) -> Tensor:
        """Subtract ImageNet's mean of each channel and divide by its standard deviation; [B, 3, S, S] -> the same."""
        return (faces - self.mean) / self.std


def resize(faces: Tensor, side_px: int) -> Tensor:
    """Resample float32 [B, C, S, S] bilinearly to [B, C, side_px, side_px]; at half of S to the mean of four pixels."""
    if faces.shape[2] == side_px:
        return faces
    return F.interpolate(faces, scale_factor=side_px / faces.shape[2], mode="bilinear")


@dataclass(frozen=True)
class TrainingPreprocess:
    """`Preprocess` in the order and layout that cost a training step least, and at resolutions below 128 too."""

    preprocess: Preprocess

    def __call__(self, images: Tensor, *, side_px: int) -> Tensor:
        """uint8 [B, 128, 128, 3] -> float32 [B, 3, side_px, side_px]."""
        faces = self.cast(images)
        return self.standardise(resize(faces, min(side_px, IMAGE_SIDE_PX)), side_px=side_px)

    def cast(self, images: Tensor) -> Tensor:
        """uint8 [B, 128, 128, 3] -> float32 [B, 3, 128, 128] in 0..1, channels-last as they come: no transposition."""
        return images.permute(0, 3, 1, 2).float().div_(255)

    def standardise(self, faces: Tensor, *, side_px: int) -> Tensor:
        """float32 [B, 3, S, S] in 0..1 -> float32 [B, 3, side_px, side_px].

        Enlarged last, so that less is gone through.
        """
        return resize(self.preprocess.normalise(faces).contiguous(memory_format=torch.channels_last), side_px)
