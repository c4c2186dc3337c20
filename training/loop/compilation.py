"""torch.compile for training, tried out before the first step, and left where it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from training.network.distributed import Ranks
from training.network.model import Logits

REASON_LENGTH = 200  # characters of what the compiler says, which can be pages

Forward = Callable[[Tensor], Logits]  # float [B, 3, R, R] -> Logits, with gradients for the network's parameters


def compiled_or_not(
    replicate: Callable[[], nn.Module],
    network: nn.Module,
    examples: Sequence[Tensor],
    ranks: Ranks,
    *,
    backend: str | Callable[..., Any] = "inductor",
) -> Forward:
    """Return `replicate()` compiled for inputs like the examples; where that fails on any rank, uncompiled on all.

    The network's weights, statistics and names are as before: only what calls it is compiled.
    """
    compiled = torch.compile(replicate(), backend=backend, dynamic=False)  # few sizes, and general kernels are slower
    problem = ""
    with _unchanged(network):
        try:
            for faces in examples:
                torch.stack([answer.float().sum() for answer in compiled(faces)]).sum().backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # a compiler can fail in any way, and training needs none
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH]
    if not ranks.maximum(bool(problem))[0]:
        return compiled
    if ranks.main:
        print(f"torch.compile failed, training goes on without it: {problem or 'on another rank'}")
    return replicate()  # anew: a failed backward pass leaves the exchange of gradients half done


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Put the network's statistics back afterwards, and drop its gradients."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
        network.zero_grad()
