"""The proof before the build: the type of every layer of the parsed network, which a strongly typed build must keep.

Whoever builds can read it, without a GPU; what the built engine says of itself is convert.engine.precision's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contract.spec import IMAGE, OUTPUTS
from convert.engine.precision import PrecisionError
from convert.engine.typed_graph import leading_to

# TensorRT's names for types, as this project has them.
_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "FP8": "fp8", "INT8": "int8"}
_OF_TENSORS = {"FP32": "FLOAT", "UINT8": "UINT8"}  # from the contract's names


@dataclass(frozen=True)
class ParsedLayer:
    """A layer of the parsed network: its ONNX node's name, its kind, and the tensors around it."""

    name: str
    operation: str  # TensorRT's LayerType: CONVOLUTION, QUANTIZE ...
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ParsedNetwork:
    """What TensorRT's parser made of an ONNX model; types are TensorRT's names of them."""

    layers: tuple[ParsedLayer, ...]
    types: Mapping[str, str]  # by tensor
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class TypeProof:
    """What all layers compute, and what the convolutions work on."""

    layer_types: dict[str, int]  # layers by the type of their output, in TensorRT's words
    convolution_types: dict[str, int]


def prove_types(network: ParsedNetwork, stated: Mapping[str, str]) -> TypeProof:
    """Compare the network with the contract and with the precision stated for each convolution by name.

    Raises PrecisionError with all that is otherwise: a convolution, an input or output, a head that is not float32.
    """
    convolutions = {layer.name: layer for layer in network.layers if layer.operation == "CONVOLUTION"}
    found = {name: _convolution_type(layer, network) for name, layer in convolutions.items()}
    wrong = [*_wrong_tensors(network), *_wrong_convolutions(found, stated)] or [*_wrong_heads(network)]
    if wrong:
        raise PrecisionError(f"nothing was built, for {len(wrong)} types are not as they should be: {'; '.join(wrong)}")
    counts = Counter(network.types[layer.outputs[0]] for layer in network.layers)
    return TypeProof(dict(counts), dict(Counter(found.values())))


def _wrong_tensors(network: ParsedNetwork) -> Iterator[str]:
    found = {name: network.types[name] for name in (*network.inputs, *network.outputs)}
    expected = {tensor.name: _OF_TENSORS[tensor.dtype] for tensor in (IMAGE, *OUTPUTS)}
    if found != expected:
        yield f"tensors are {found} and should be {expected}"


def _wrong_convolutions(found: Mapping[str, str], stated: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(found.keys() | stated.keys()):
        if found.get(name) != stated.get(name):
            yield f"convolution {name} is {found.get(name, 'absent')} and should be {stated.get(name, 'absent')}"


def _convolution_type(layer: ParsedLayer, network: ParsedNetwork) -> str:
    """Return int8 where image and weights both come from INT8 by way of a DEQUANTIZE, else the type of the result."""
    dequantized = {
        name: network.types[source.inputs[0]]
        for source in network.layers
        if source.operation == "DEQUANTIZE"
        for name in source.outputs
    }
    sources = {dequantized.get(name) for name in layer.inputs[:2]}
    type_ = "INT8" if len(layer.inputs) > 1 and sources == {"INT8"} else network.types[layer.outputs[0]]
    return _PRECISIONS.get(type_, type_)


def _wrong_heads(network: ParsedNetwork) -> Iterator[str]:
    """Of what leads to some outputs and not to all, whatever computes in another floating type than float32."""
    inputs = {name: layer.inputs for layer in network.layers for name in layer.outputs}
    shared = set.intersection(*(leading_to(name, inputs) for name in network.outputs))
    for layer in network.layers:
        type_ = network.types[layer.outputs[0]]
        if layer.outputs[0] not in shared and type_ in _PRECISIONS and type_ != "FLOAT":
            yield f"{layer.operation} {layer.name} of a head is {_PRECISIONS[type_]} and should be fp32"
