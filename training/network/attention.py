"""CBAM, convolutional block attention (Woo et al. 2018, arXiv:1807.06521), in the lighter form AgeGenderNet uses.

The paper pools the channel attention by average and maximum; here by average alone, and no layer has a bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNEL_REDUCTION = 16
SPATIAL_KERNEL = 7


class ChannelAttention(nn.Module):
    """Weighs channels: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // CHANNEL_REDUCTION
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weighs places by the mean and maximum across channels: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.conv(pooled).sigmoid()


class CBAM(nn.Sequential):
    """Channel attention, then spatial attention."""

    def __init__(self, channels: int) -> None:
        super().__init__(ChannelAttention(channels), SpatialAttention())
