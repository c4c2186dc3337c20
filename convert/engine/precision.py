"""The proof that a built engine computes in the precision that was asked for, from the engine inspector's JSON.

A build that falls back to FP32 exits as successfully as any other; only what the builder wrote down tells. TensorRT 10
writes a tensor's type as "Format/Datatype", 11 as "DataType"; both as "Half" or within "Row major linear FP16 format".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contract.program import UserError

Layer = Mapping[str, Any]

_TYPE = re.compile(r"\b(FP32|Float|FP16|Half|BF16|BFloat16|FP8|Int8)\b", re.IGNORECASE)
_NAMES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# Layers that move or hold data carry the metadata of the convolution they serve.
_NO_ARITHMETIC = {"Reformat", "NoOp", "Constant", "Shuffle", "Signal", "Wait"}
# Also how TensorRT's Myelin compiler calls a convolution.
_CONVOLVES = re.compile("conv|gemm|correlation", re.IGNORECASE)


class PrecisionError(UserError, RuntimeError):
    """The engine does not compute as its ONNX model states, or does not say how it computes."""


@dataclass(frozen=True)
class PrecisionProof:
    """How the engine runs the ONNX model's convolutions, and what all its layers work on."""

    layer_precisions: dict[str, int]  # layers by the type they take in
    convolution_precisions: dict[str, int]  # convolutions by the type they are proven to run in
    wrong: tuple[str, ...]  # one line for each convolution that runs in another type than stated
    unnamed: tuple[str, ...]  # convolutions that no layer names


def prove(inspector_json: str, stated: Mapping[str, str]) -> PrecisionProof:
    """Compare the inspector's layers with the precision that the ONNX model states for each convolution by name.

    Raises PrecisionError where a convolution runs in another precision, or where the JSON names none of them.
    """
    proof = examine(inspector_json, stated)
    if proof.wrong:
        raise PrecisionError(
            f"{len(proof.wrong)} of {len(stated)} convolutions do not run as the ONNX model states: "
            + "; ".join(proof.wrong)
        )
    if len(proof.unnamed) == len(stated):
        raise PrecisionError(
            "the engine inspector names no convolution of the ONNX model, so its precision is not proven; the engine "
            "must be built with detailed profiling verbosity"
        )
    return proof


def examine(inspector_json: str, stated: Mapping[str, str]) -> PrecisionProof:
    """Count as `prove` does, without judging."""
    layers = _read_layers(inspector_json)
    computing = [layer for layer in layers if layer.get("LayerType") not in _NO_ARITHMETIC]
    wrong, unnamed, proven = [], [], Counter[str]()
    for node, expected in stated.items():
        claimants = [layer for layer in computing if node in _onnx_nodes(layer)]
        found = _convolution_types([layer for layer in claimants if _convolves(layer)] or claimants)
        if not found:
            unnamed.append(node)
        elif expected in found:
            proven[expected] += 1
        else:
            wrong.append(f"{node} is {expected} in the ONNX model and {' or '.join(sorted(found))} in the engine")
    counts = Counter(next(_types(layer), "other") for layer in layers)
    return PrecisionProof(dict(counts), dict(proven), tuple(wrong), tuple(unnamed))


def _read_layers(inspector_json: str) -> list[Layer]:
    """Those with details: without detailed verbosity a layer is its name alone."""
    try:
        # Not strict: metadata is joined with the control character U+001E, which not every version escapes.
        found: list[Layer] = json.loads(inspector_json, strict=False)["Layers"]
    except (json.JSONDecodeError, KeyError) as error:
        raise PrecisionError(
            f"the engine inspector's account cannot be read, so nothing is proven: {error!r}"
        ) from error
    return [layer for layer in found if isinstance(layer, dict)]


def _convolution_types(layers: list[Layer]) -> set[str]:
    """The weights' type where a layer states it, else its input's; of a fused kernel, every type that it touches."""
    found: set[str] = set()
    for layer in layers:
        weights = _type_name(str(layer.get("Weights", {}).get("Type", "")))
        if weights:
            found.add(weights)
        elif _convolves(layer):
            found |= set(list(_types(layer))[:1])
        else:
            found |= set(_types(layer))
    return found


def _convolves(layer: Layer) -> bool:
    return bool(_CONVOLVES.search(f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}"))


def _onnx_nodes(layer: Layer) -> set[str]:
    """The ONNX nodes that a layer implements: from its metadata, or its name, which joins them with " + "."""
    return set(_ONNX_NODE.findall(str(layer.get("Metadata", "")))) or set(str(layer.get("Name", "")).split(" + "))


def _types(layer: Layer) -> Iterator[str]:
    """Arithmetic types of a layer's inputs, then its outputs."""
    for tensor in (*layer.get("Inputs", ()), *layer.get("Outputs", ())):
        stated = [str(value) for key, value in tensor.items() if "datatype" in key.lower()]
        if name := _type_name(" ".join(stated or [str(tensor.get("Format", ""))])):
            yield name


def _type_name(text: str) -> str:
    match = _TYPE.search(text)
    return _NAMES.get(match[1].lower(), match[1].lower()) if match else ""
