"""AgeGenderNet as published: residual trunk with CBAM, three shared dense layers, three heads; 9,365,552 parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from contract.spec import EMOTIONS
from training.network.attention import CBAM

STAGES = ((64, 2), (128, 2), (256, 3), (384, 2))  # channels and basic blocks of each
ATTENTION_STAGES = (2, 3)  # the last block of these has CBAM before its residual add
DENSE = ((512, 0.5), (256, 0.4), (128, 0.3))  # width and dropout of the shared layers
HEAD_WIDTH = 64
EMOTION_DROPOUT = 0.3
MIN_RESOLUTION, MAX_RESOLUTION = 128, 224  # never below the canonical image: a served graph must not downscale


class Logits(NamedTuple):
    """What the network answers for B faces, before sigmoid and softmax."""

    age: Tensor  # [B], years
    gender: Tensor  # [B], logit of male
    emotion: Tensor  # [B, 8], logits

    def answers(self) -> Logits:
        """Return the same fields as a client sees them: years, probability of male, probabilities of the emotions."""
        return Logits(self.age, self.gender.sigmoid(), self.emotion.softmax(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, optionally with CBAM before the residual add."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, attention: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.attention = CBAM(channels) if attention else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return (self.attention(self.body(x)) + self.shortcut(x)).relu()


class AgeGenderNet(nn.Module):
    """Normalised faces float [B, 3, R, R] -> Logits; R is any resolution, the published network was trained at 224."""

    def __init__(self) -> None:
        super().__init__()
        channels = STAGES[0][0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.Sequential(*(_stage(index) for index in range(len(STAGES))))
        self.attention = CBAM(STAGES[-1][0])
        self.dense = nn.Sequential(*_dense_layers(STAGES[-1][0]))
        width = DENSE[-1][0]
        self.age_head = _head(width, 1)
        self.gender_head = _head(width, 1)
        self.emotion_head = _head(width, len(EMOTIONS), dropout=EMOTION_DROPOUT)
        self.apply(_initialise)

    @torch.no_grad()
    def start_quickly(self, *, median_age_years: float) -> None:
        """Give the heads other first weights, for short runs.

        The published N(0, 0.01) in both layers of a head lets next to no gradient through to the trunk at first.
        """
        for head in (self.age_head, self.gender_head, self.emotion_head):
            for layer in head:
                if isinstance(layer, nn.Linear):
                    nn.init.kaiming_normal_(layer.weight)
        nn.init.constant_(self.age_head[-1].bias, median_age_years)  # type: ignore[arg-type]

    def features(self, faces: Tensor) -> Tensor:
        """Run the trunk: float [B, 3, R, R] -> what the three heads share, [B, 128]."""
        return self.dense(self.attention(self.stages(self.stem(faces))).mean((2, 3)))

    def heads(self, features: Tensor) -> Logits:
        """Run the three heads: [B, 128] -> Logits."""
        age, gender = self.age_head(features).squeeze(1), self.gender_head(features).squeeze(1)
        return Logits(age, gender, self.emotion_head(features))

    def forward(self, faces: Tensor) -> Logits:
        return self.heads(self.features(faces))


def parameter_count(module: nn.Module) -> int:
    """Count the trainable parameters; batch-norm statistics are not among them."""
    return sum(p.numel() for p in module.parameters())


def _stage(index: int) -> nn.Sequential:
    channels, blocks = STAGES[index]
    in_channels = STAGES[max(index - 1, 0)][0]
    stride = 1 if index == 0 else 2
    return nn.Sequential(
        *(
            BasicBlock(
                in_channels if block == 0 else channels,
                channels,
                stride if block == 0 else 1,
                attention=index in ATTENTION_STAGES and block == blocks - 1,
            )
            for block in range(blocks)
        )
    )


def _dense_layers(in_features: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width, dropout in DENSE:
        layers += [nn.Linear(in_features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
        in_features = width
    return layers


def _head(in_features: int, out_features: int, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(in_features, HEAD_WIDTH), nn.ReLU()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(HEAD_WIDTH, out_features))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
