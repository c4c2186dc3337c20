"""Requests that no client of ours would send: the raw material of the server's fuzz, reproducible from a seed."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2

from contract.spec import DECODE_MODEL_NAME, ENCODED_IMAGE, ENSEMBLE_NAME, IMAGE, MODEL_NAME

Rng = np.random.Generator
MODELS = (MODEL_NAME, DECODE_MODEL_NAME, ENSEMBLE_NAME)
DATATYPES = ("UINT8", "BYTES", "FP32", "FP16", "INT64", "BOOL", "", "NOISE")
DIMS = (0, 1, 2, 3, 64, 65, 128, 224, 49152, -1, 2**31, 2**40, 2**62)


def grpc_request(rng: Rng) -> Any:
    """A ModelInferRequest with something, or everything, wrong."""
    model = str(rng.choice([*MODELS, "", "../agegendernet", "agegendernet\x00", "x" * 5000]))
    request = service_pb2.ModelInferRequest(
        model_name=model, model_version=str(rng.choice(["", "1", "2", "-1", "9" * 30]))
    )
    for _ in range(rng.choice([0, 1, 1, 1, 2])):
        tensor = request.inputs.add(
            name=str(rng.choice([IMAGE.name, ENCODED_IMAGE.name, "", "Image", "x" * 3000])),
            datatype=str(rng.choice(DATATYPES)),
            shape=shape(rng),
        )
        if rng.random() < 0.1:
            tensor.parameters["shared_memory_region"].string_param = "none"
            tensor.parameters["shared_memory_byte_size"].int64_param = int(rng.choice([0, 1, 2**62, -1]))
            tensor.parameters["shared_memory_offset"].int64_param = int(rng.choice([0, 2**62, -1]))
    for _ in range(rng.choice([0, 1, 1, 2])):
        request.raw_input_contents.append(content(rng))
    if rng.random() < 0.2:
        request.outputs.add(name=str(rng.choice(["age", "", "none"])))
    if rng.random() < 0.2:
        request.parameters[str(rng.choice(["priority", "timeout", "sequence_id", "x"]))].int64_param = int(
            rng.integers(-5, 2**40)
        )
    return request


def http_request(rng: Rng) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of an inference over HTTP with something wrong."""
    data = content(rng)
    header: Any = {
        "inputs": [
            {
                "name": str(rng.choice([IMAGE.name, ENCODED_IMAGE.name, ""])),
                "shape": shape(rng),
                "datatype": str(rng.choice(DATATYPES)),
                "parameters": {"binary_data_size": int(rng.choice([len(data), len(data) + 1, 0, -1, 2**40]))},
            }
        ]
    }
    if rng.random() < 0.2:
        header["inputs"][0]["data"] = [[1, "a", None], {}, [[[]]]][rng.integers(3)]
    text = json.dumps(header).encode()
    if rng.random() < 0.3:
        text = mutated(rng, text)
    length = str(rng.choice([len(text), len(text) + 1, 0, -1, 10**15]))
    headers = {} if rng.random() < 0.1 else {"Inference-Header-Content-Length": length}
    body = text + data
    if rng.random() < 0.1:
        headers["Content-Encoding"] = str(rng.choice(["gzip", "deflate"]))
        body = gzip.compress(body) if rng.random() < 0.5 else body
    return f"/v2/models/{rng.choice(MODELS)}/infer", headers, body


def image_request(rng: Rng) -> Any:
    """A well-formed request for the ensemble whose pictures are hostile."""
    files = [hostile_image(rng) for _ in range(rng.choice([1, 1, 1, 3]))]
    request = service_pb2.ModelInferRequest(model_name=str(rng.choice([ENSEMBLE_NAME, DECODE_MODEL_NAME])))
    request.inputs.add(name=ENCODED_IMAGE.name, datatype="BYTES", shape=[len(files), 1])
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(file)) + file for file in files))
    return request


def shape(rng: Rng) -> list[int]:
    correct = [1, *IMAGE.dims]
    if rng.random() < 0.4:
        correct[rng.integers(4)] = int(rng.choice(DIMS))
        return correct
    return [int(n) for n in rng.choice(DIMS, rng.integers(0, 6))]


def content(rng: Rng) -> bytes:
    size = int(rng.choice([0, 1, 4, 100, 49151, 49152, 49153, 3 * 49152]))
    if rng.random() < 0.2:  # BYTES with a length that is a lie
        return struct.pack("<I", int(rng.choice([0, 2**31, 2**32 - 1]))) + rng.bytes(min(size, 100))
    return rng.bytes(size)


def hostile_image(rng: Rng) -> bytes:
    if rng.random() < 0.4:
        return fixed_images()[rng.integers(len(fixed_images()))]
    whole = picture(rng)
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: whole,
        lambda: rng.bytes(int(rng.integers(1, 2000))),
        lambda: mutated(rng, whole),
        lambda: whole[: rng.integers(1, 400)],
        lambda: whole + b"PK\x03\x04" + rng.bytes(500),  # a polyglot: also the start of a zip
        lambda: b"GIF89a" + whole,
    )
    return makers[rng.integers(len(makers))]()


@cache
def fixed_images() -> tuple[bytes, ...]:
    """Bombs and headers that lie; 20 MB of zeros are 20 kB compressed."""
    zeros = bytes(20_000_000)
    sides = itertools.product((1, 30_000, 2**31 - 1), (1, 65_535, 30_000))
    return (
        b"",
        *(png(width, height, b"\0" * 100) for width, height in sides),
        png(1, 65_535, b"\0" * 4 * 65_535),
        png(128, 128, zeros),
        png(128, 128, b"", extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(zeros))),
        png(128, 128, b"", extra=chunk(b"iCCP", b"k\0\0" + zlib.compress(zeros))),
    )


def picture(rng: Rng) -> bytes:
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, str(rng.choice(["JPEG", "PNG", "WEBP", "BMP"])))
    return buffer.getvalue()


def mutated(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(0, len(changed), rng.integers(1, 10)):
        changed[position] = rng.integers(256)
    return bytes(changed)


def png(width: int, height: int, pixels: bytes, *, extra: bytes = b"") -> bytes:
    """An RGB picture whose header says what we like."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
