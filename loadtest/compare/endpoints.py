"""One address where faces are sent to: asked for its answers, and put under load. The same for ours and for peers."""

from __future__ import annotations

import http.client
import json
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from contract.headers import local_headers
from contract.spec import EMOTIONS, IMAGE, MODEL_NAME, OUTPUTS, Images, Predictions
from loadtest.generator.closed_loop import Load, grpc_load, http_load
from loadtest.generator.connections import GRPC_OPTIONS
from loadtest.generator.payloads import OUTPUT_VALUES, check_http_answer, http_tensor_requests

OCTETS = {"Content-Type": "application/octet-stream"}
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Endpoint(ABC):
    """`protocol` says what travels: the bytes of a request are the 49,152 of a canonical image everywhere."""

    url: str

    @property
    @abstractmethod
    def protocol(self) -> str: ...

    @abstractmethod
    def predict(self, faces: Images) -> Predictions:
        """Send uint8 [N, 128, 128, 3], one request each. Raises ConnectionError where nothing listens."""

    @abstractmethod
    def load(self, faces: Images, *, in_flight: int, seconds: float, warm_up_s: float) -> Load:
        """Run a closed loop of requests of one face. Raises LoadError."""


class TritonEndpoint(Endpoint):
    """gRPC of a Triton server, grpc://host:port."""

    protocol = "gRPC tensor"

    def predict(self, faces: Images) -> Predictions:
        authority = urlsplit(self.url).netloc
        with tritonclient.grpc.InferenceServerClient(authority, channel_args=GRPC_OPTIONS) as client:
            return Predictions.concatenate(_ask(client, local_headers(authority), face) for face in faces)

    def load(self, faces: Images, *, in_flight: int, seconds: float, warm_up_s: float) -> Load:
        return grpc_load(self.url, faces, in_flight=in_flight, seconds=seconds, warm_up_s=warm_up_s)


class TritonHttpEndpoint(Endpoint):
    """HTTP of a Triton server, with binary tensors both ways; `url` is that of the server."""

    protocol = "HTTP tensor"

    def predict(self, faces: Images) -> Predictions:
        bodies, headers = http_tensor_requests(faces)
        values = [_post(self._path, body, headers)[-OUTPUT_VALUES.size :] for body in bodies]
        return _predictions(np.stack([np.frombuffer(packed, "<f4") for packed in values]))

    def load(self, faces: Images, *, in_flight: int, seconds: float, warm_up_s: float) -> Load:
        bodies, headers = http_tensor_requests(faces)
        return http_load(
            self._path, bodies, headers, check_http_answer, in_flight=in_flight, seconds=seconds, warm_up_s=warm_up_s
        )

    @property
    def _path(self) -> str:
        return f"{self.url}/v2/models/{MODEL_NAME}/infer"


class JsonEndpoint(Endpoint):
    """Raw pixels in, JSON with age, gender and emotion out; `url` has the path."""

    protocol = "HTTP bytes, JSON"

    def predict(self, faces: Images) -> Predictions:
        answers = [_json_answer(_post(self.url, face.tobytes(), OCTETS)) for face in faces]
        return _predictions(np.array(answers, np.float32))

    def load(self, faces: Images, *, in_flight: int, seconds: float, warm_up_s: float) -> Load:
        bodies = [face.tobytes() for face in faces]
        return http_load(
            self.url, bodies, OCTETS, check_json_answer, in_flight=in_flight, seconds=seconds, warm_up_s=warm_up_s
        )


def check_json_answer(body: bytes) -> None:
    """Raise ValueError unless it holds all outputs of one image, finite."""
    if not math.isfinite(sum(_json_answer(body))):
        raise ValueError("the answer has a number that is not finite")


def _json_answer(body: bytes) -> list[float]:
    answer = json.loads(body)
    numbers = [answer["age"], answer["gender"], *answer["emotion"]]
    if len(numbers) != 2 + len(EMOTIONS):
        raise ValueError(f"the answer has {len(numbers) - 2} emotions, not {len(EMOTIONS)}")
    return numbers


def _predictions(rows: np.ndarray) -> Predictions:
    """float32 [N, 10]: age, gender, emotions."""
    return Predictions(rows[:, 0], rows[:, 1], rows[:, 2:])


def _post(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("POST", parts.path, body, {**local_headers(parts.netloc), **headers})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ValueError(f"{url} answers {answer.status}: {content[:200].decode(errors='replace')}")
    return content


def _ask(client: tritonclient.grpc.InferenceServerClient, headers: dict[str, str], face: np.ndarray) -> Predictions:
    tensor = tritonclient.grpc.InferInput(IMAGE.name, [1, *IMAGE.dims], IMAGE.dtype).set_data_from_numpy(face[None])
    try:
        result = client.infer(MODEL_NAME, [tensor], client_timeout=TIMEOUT_S, headers=headers)
    except InferenceServerException as error:
        if error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND"):  # or listens, but has no model yet
            raise ConnectionError(str(error)) from error
        raise
    return Predictions.from_outputs({spec.name: result.as_numpy(spec.name) for spec in OUTPUTS})
