"""What is exported: AgeGenderNet wrapped so that canonical images go in and probabilities come out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from training.network.checkpoint import Checkpoint
from training.network.model import Logits
from training.network.preprocess import Preprocess


class ServingModel(nn.Module):
    """uint8 [B, 128, 128, 3] -> age [B, 1] in years, gender [B, 1] and emotion [B, 8] as probabilities, float32.

    With `half`, the trunk computes in float16 while preprocessing and heads stay float32: half-precision numbers are
    0.0625 apart at ages 64-128, and TensorRT takes every layer's precision from the graph.
    """

    def __init__(self, checkpoint: Checkpoint, *, half: bool = False) -> None:
        super().__init__()
        self.preprocess = Preprocess(checkpoint.resolution)
        self.network = copy.deepcopy(checkpoint.network).eval()
        self.trunk_dtype = torch.float16 if half else torch.float32
        if half:
            for part in (self.network.stem, self.network.stages, self.network.attention, self.network.dense):
                part.half()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        faces = self.preprocess(image).to(self.trunk_dtype)
        logits: Logits = self.network.heads(self.network.features(faces).float())
        age, gender, emotion = logits.answers()
        return age[:, None], gender[:, None], emotion
