"""Requests as bytes, made once and sent many times, and the checks of what comes back."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import serialize_byte_tensor

from contract.spec import ENCODED_IMAGE, ENSEMBLE_NAME, IMAGE, MODEL_NAME, OUTPUTS, Images, TensorSpec, check_images

OUTPUT_SHAPES = {tensor.name: [1, *tensor.dims] for tensor in OUTPUTS}
OUTPUT_VALUES = struct.Struct(f"<{sum(math.prod(shape) for shape in OUTPUT_SHAPES.values())}f")


def http_tensor_requests(faces: Images) -> tuple[list[bytes], dict[str, str]]:
    """Make bodies and headers for our server: POST /v2/models/agegendernet/infer, one face each, binary both ways."""
    bodies, json_bytes = [], 0
    for face in check_images(faces):
        body, json_bytes = _http_body(IMAGE, face[None])
        bodies.append(body)
    return bodies, {"Inference-Header-Content-Length": str(json_bytes)}


def http_encoded_requests(encoded: Sequence[bytes]) -> tuple[list[bytes], dict[str, str]]:
    """Make bodies and headers for our server's /v2/models/face_attributes/infer, one picture each.

    Binary requests name the length of the picture in their JSON part: Triton also takes the bare file, with a header
    of length 0, which needs no such part at all.
    """
    return list(encoded), {"Inference-Header-Content-Length": "0"}


def check_grpc_answer(message: bytes) -> None:
    """Raise ValueError unless it holds all outputs of one image, finite."""
    answer = service_pb2.ModelInferResponse.FromString(message)
    shapes = {output.name: list(output.shape) for output in answer.outputs}
    if shapes != OUTPUT_SHAPES:
        raise ValueError(f"the answer has outputs {shapes}, not {OUTPUT_SHAPES}")
    _check_finite(b"".join(answer.raw_output_contents))


def check_http_answer(body: bytes) -> None:
    """Check the same of the body of an HTTP answer with binary outputs."""
    values = body[-OUTPUT_VALUES.size :]
    described = json.loads(body[: -OUTPUT_VALUES.size])
    shapes = {output["name"]: output["shape"] for output in described["outputs"]}
    if shapes != OUTPUT_SHAPES:
        raise ValueError(f"the answer has outputs {shapes}, not {OUTPUT_SHAPES}")
    _check_finite(values)


def _check_finite(values: bytes) -> None:
    if len(values) != OUTPUT_VALUES.size or not math.isfinite(sum(OUTPUT_VALUES.unpack(values))):
        raise ValueError("the answer has a number that is missing or not finite")


def _request(model: str, spec: TensorSpec) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name=spec.name, datatype=spec.dtype, shape=[1, *spec.dims])
    return message


def tensor_request(face: NDArray[np.uint8]) -> bytes:
    """Make a gRPC request of one face, uint8 [128, 128, 3]."""
    message = _request(MODEL_NAME, IMAGE)
    message.raw_input_contents.append(face.tobytes())
    return bytes(message.SerializeToString())


def encoded_request(data: bytes) -> bytes:
    """Make a gRPC request of one image file, for the ensemble."""
    message = _request(ENSEMBLE_NAME, ENCODED_IMAGE)
    message.raw_input_contents.append(serialize_byte_tensor(np.array([[data]], np.object_)).item())
    return bytes(message.SerializeToString())


def _http_body(spec: TensorSpec, array: NDArray[np.uint8]) -> tuple[bytes, int]:
    body, json_bytes = InferenceServerClient.generate_request_body(
        [InferInput(spec.name, list(array.shape), spec.dtype).set_data_from_numpy(array)]
    )
    return bytes(body), int(json_bytes)


def shared_request(region: str, byte_size: int, offset: int) -> bytes:
    """Make a gRPC request of one face that lies in a registered region of shared memory."""
    message = _request(MODEL_NAME, IMAGE)
    parameters = message.inputs[0].parameters
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = byte_size
    parameters["shared_memory_offset"].int64_param = offset
    return bytes(message.SerializeToString())
