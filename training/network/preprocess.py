"""From canonical images to the network's input: the same module in the training step and in the export."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.spec import IMAGE_SIDE_PX
from training.network.model import MAX_RESOLUTION, MIN_RESOLUTION

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess(nn.Module):
    """uint8 [B, 128, 128, 3] -> float32 [B, 3, R, R]: cast, bilinear upsampling, ImageNet normalisation."""

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

    def cast(self, images: Tensor) -> Tensor:
        """uint8 [B, 128, 128, 3] -> float32 [B, 3, 128, 128] in 0..1, where augmentation works."""
        # TensorRT wants a uint8 input to feed a Cast directly; without contiguous() the exporter emits as_strided.
        return images.float().permute(0, 3, 1, 2).contiguous() / 255

    def standardise(self, faces: Tensor) -> Tensor:
        """float32 [B, 3, 128, 128] in 0..1 -> the network's input [B, 3, R, R]."""
        return self.normalise(self.enlarge(faces))

    def enlarge(self, faces: Tensor) -> Tensor:
        """float32 [B, C, S, S] -> [B, C, S * R / 128, S * R / 128]."""
        if self.resolution == IMAGE_SIDE_PX:
            return faces
        return F.interpolate(faces, scale_factor=self.resolution / IMAGE_SIDE_PX, mode="bilinear")

    def normalise(self, faces: Tensor) -> Tensor:
        """By ImageNet's mean and standard deviation of each channel."""
        return (faces - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        return self.standardise(self.cast(images))
