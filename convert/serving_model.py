"""What is exported: AgeGenderNet wrapped so that canonical images go in and probabilities come out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from contract.program import UserError
from training.network.checkpoint import Checkpoint
from training.network.model import Logits
from training.network.preprocess import Preprocess


class PrecisionError(UserError, ValueError):
    """Weights are not exactly representable in half precision, so storing them so would change the answers."""


class ServingModel(nn.Module):
    """uint8 [B, 128, 128, 3] -> age [B, 1] in years, gender [B, 1] and emotion [B, 8] as probabilities, float32.

    With `half`, the trunk computes in float16 while preprocessing and heads stay float32: half-precision numbers are
    0.0625 apart at ages 64-128, and TensorRT takes every layer's precision from the graph.

    With `stored_half`, everything computes in float32 on weights that are kept in float16 and widened, so that an
    export takes half the space. Raises PrecisionError where float16 cannot hold them exactly.
    """

    def __init__(self, checkpoint: Checkpoint, *, half: bool = False, stored_half: bool = False) -> None:
        super().__init__()
        self.preprocess = Preprocess(checkpoint.resolution)
        self.network = copy.deepcopy(checkpoint.network).eval()
        self.trunk_dtype = torch.float16 if half else torch.float32
        if half:
            for part in (self.network.stem, self.network.stages, self.network.attention, self.network.dense):
                part.half()
        if stored_half:
            store_in_half(self.network)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        faces = self.preprocess(image).to(self.trunk_dtype)
        logits: Logits = self.network.heads(self.network.features(faces).float())
        return logits.age[:, None], logits.gender.sigmoid()[:, None], _softmax(logits.emotion)


def _softmax(logits: Tensor) -> Tensor:
    """Compute [B, N] logits -> probabilities, written out: ONNX's Softmax costs shape arithmetic in TensorRT.

    TensorRT's parser asks for the shape of what it normalises while the engine runs, in INT64 and on the CPU (SHAPE and
    CAST layers), only to give the result the shape that it has already.
    """
    exponentials = (logits - logits.amax(1, keepdim=True)).exp()
    return exponentials / exponentials.sum(1, keepdim=True)


def store_in_half(network: nn.Module) -> None:
    """Keep the weights of convolutions and dense layers in float16, widened to float32 wherever they are used.

    Raises PrecisionError unless that is exact.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rounded = layer.weight.detach().half()
            if not torch.equal(rounded.float(), layer.weight):
                raise PrecisionError(
                    f"the weights of {name} are not exact in half precision, so answers would change; round the "
                    "checkpoint first with python -m training.release, which holds its answers against the trained ones"
                )
            layer.weight = nn.Parameter(rounded, requires_grad=False)
            # unsafe: what is stored and what is used differ in type.
            register_parametrization(layer, "weight", _Widened(), unsafe=True)


class _Widened(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()
