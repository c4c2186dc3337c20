"""The synchronous client, and what it has in common with the asynchronous one.

with FaceAttributesClient("grpc://127.0.0.1:8001") as client:
    print(client.predict("face.jpg").to_dict())
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from numpy.typing import NDArray
from tenacity import Retrying

from clients.calls import MODEL_CONFIG, MODEL_METADATA, STATISTICS, Call, Parameters, Reply, infer_call
from clients.errors import ClientClosed, FaceAttributesError, InvalidImage, InvalidInput, ServerUnavailable
from clients.inputs import ImageLike, named, prepare, prepare_photo, results_of, split_batch, stack
from clients.messages import (
    DetectedFaces,
    FaceAttributes,
    PhotoResult,
    Result,
    check_contract,
    detected_faces_of,
    faces_of,
    predictions_of,
)
from clients.status import Health, ModelStatistics, Outcome, health_calls, statistics_of
from clients.streams import chunked, map_ordered
from clients.wire.endpoint import Endpoint, Tls
from clients.wire.grpc import GrpcTransport
from clients.wire.http import HttpTransport
from clients.wire.resilience import Circuit, retry_options
from contract.spec import (
    ENCODED_IMAGE,
    ENSEMBLE_NAME,
    MAX_BATCH_SIZE,
    MIN_FACE_PX,
    MIN_SCORE,
    MODEL_NAME,
    PHOTO_MODEL_NAME,
    Images,
    Predictions,
)

TransportT = TypeVar("TransportT")
Wire = Literal["tensor", "encoded"]

DEFAULT_IN_FLIGHT = 16


class Transport(Protocol):
    """What the client needs of a transport; a test's may answer from memory. Must be safe to use from many threads."""

    def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""

    def close(self) -> None:
        """Release the connection."""


class BaseClient(Generic[TransportT]):
    """Options and state of `FaceAttributesClient` and `AsyncFaceAttributesClient`, and all they do without I/O.

    url: grpc://, grpcs://, http:// or https://host:port
    timeout_s: for one attempt at a request of up to MAX_BATCH_SIZE images and all that it needs; the server is told,
        and drops what nobody waits for any more. No request takes longer than timeout_s + retry_for_s
    retry_for_s: how long a server that is unavailable or busy is tried again; 0 for never
    wire: "tensor" decodes here and sends 49,152 bytes an image; "encoded" sends files as they are, the server decodes
    shared_memory: on the server's own host, leave canonical images in memory that both see
    compress: gzip requests, for slow links
    headers: sent with every request, such as credentials; never logged
    circuit: share one among clients of the same server; by default each has its own
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        retry_for_s: float = 2.0,
        wire: Wire = "tensor",
        shared_memory: bool = False,
        compress: bool = False,
        headers: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        circuit: Circuit | None = None,
        transport: TransportT | None = None,
    ) -> None:
        if wire not in ("tensor", "encoded"):
            raise InvalidInput(f"wire is 'tensor' or 'encoded', not {wire!r}")
        self._endpoint = Endpoint.at(url, timeout_s=timeout_s, headers=headers, tls=tls, compress=compress)
        self._encode = wire == "encoded"
        self._model = ENSEMBLE_NAME if self._encode else MODEL_NAME  # that `predict` asks
        self._retry_options = retry_options(retry_for_s)
        self._circuit = circuit or Circuit()
        self._checked: set[str] = set()  # models whose contract was compared on this connection
        self._closed = False
        self._transport = transport or self._open_transport(shared_memory=shared_memory)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        return self._endpoint.url

    @property
    def _chunk_size(self) -> int:
        """Images in a request; encoded ones go alone, so that the server refuses a bad one alone."""
        return 1 if self._encode else MAX_BATCH_SIZE

    def _open_transport(self, *, shared_memory: bool) -> TransportT:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"{self!r} is closed; open another one")

    def _deadline(self) -> float:
        """When an attempt that begins now has to end."""
        return time.monotonic() + self._endpoint.timeout_s

    def _accept(self, model: str, metadata: Reply) -> None:
        check_contract(metadata, model, url=self.url)
        self._checked.add(model)

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """Compare contracts again after a server was unavailable: what comes up at the address may be another one."""
        try:
            yield
        except ServerUnavailable:
            self._checked.clear()
            raise


@contextmanager
def refused_images(call: Call) -> Iterator[None]:
    """Raise InvalidImage for InvalidInput where the model decodes for us: it was the image that was refused."""
    try:
        yield
    except InvalidInput as error:
        is_parameter = any(f"parameter {name} " in str(error) for name in call.parameters)
        if call.tensor is None or call.tensor.spec != ENCODED_IMAGE or is_parameter:
            raise
        raise InvalidImage(str(error)) from error


class FaceAttributesClient(BaseClient[Transport]):
    """Face attributes from a Triton server over gRPC or HTTP. One client serves any number of threads.

    Every method that asks the server raises an error of `clients.errors`; for the options see `BaseClient`.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the connection and shared memory; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._transport.close()

    def predict(self, image: ImageLike) -> FaceAttributes:
        """Return the attributes of the face in one image. Raises InvalidImage where it cannot be read."""
        [result] = self._predict_chunk([image])
        if isinstance(result, InvalidImage):
            raise result
        return result

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Result]:
        """Return a result for each image, in order; in place of one that cannot be read stands its error."""
        chunks = chunked(images, self._chunk_size)
        return list(chain.from_iterable(map_ordered(self._predict_chunk, chunks, in_flight=DEFAULT_IN_FLIGHT)))

    def predict_stream(self, images: Iterable[ImageLike], *, in_flight: int = DEFAULT_IN_FLIGHT) -> Iterator[Result]:
        """Yield a result for each of endless images: a request each, `in_flight` at the server, no more read ahead."""
        return chain.from_iterable(map_ordered(self._predict_chunk, chunked(images, 1), in_flight=in_flight))

    def find_faces(
        self, photo: ImageLike, *, min_score: float | None = None, min_face_px: float | None = None
    ) -> DetectedFaces:
        """Return the faces of a whole photo, largest first; an empty list where there is none.

        min_score: the detector's certainty, 0.3 to 1; min_face_px: shorter side of a face's box. None: as the server
        is configured. Raises InvalidImage for a photo that cannot be read.
        """
        limits = {MIN_SCORE: min_score, MIN_FACE_PX: min_face_px}
        sent = prepare_photo(photo)
        try:
            return detected_faces_of(self._ask(PHOTO_MODEL_NAME, sent, limits), url=self.url)
        except InvalidImage as error:
            raise named(error, photo) from error

    def find_faces_batch(
        self, photos: Sequence[ImageLike], *, min_score: float | None = None, min_face_px: float | None = None
    ) -> list[PhotoResult]:
        """Return `find_faces` of each photo, in order; in place of one that cannot be read stands its error."""
        return list(self.find_faces_stream(photos, min_score=min_score, min_face_px=min_face_px))

    def find_faces_stream(
        self,
        photos: Iterable[ImageLike],
        *,
        min_score: float | None = None,
        min_face_px: float | None = None,
        in_flight: int = DEFAULT_IN_FLIGHT,
    ) -> Iterator[PhotoResult]:
        """Yield `find_faces` of each of endless photos, `in_flight` at the server, no more read ahead."""

        def find(photo: ImageLike) -> PhotoResult:
            try:
                return self.find_faces(photo, min_score=min_score, min_face_px=min_face_px)
            except InvalidImage as error:
                return error

        return map_ordered(find, photos, in_flight=in_flight)

    def infer(self, images: Images) -> Predictions:
        """Return predictions for canonical images, uint8 [N, 128, 128, 3], N >= 1; split above MAX_BATCH_SIZE."""
        return Predictions.concatenate(self._infer(MODEL_NAME, batch) for batch in split_batch(images))

    def infer_stream(self, batches: Iterable[Images], *, in_flight: int = DEFAULT_IN_FLIGHT) -> Iterator[Predictions]:
        """Yield `infer` of each batch, in order, with up to `in_flight` at the server and no more read ahead."""
        return map_ordered(self.infer, batches, in_flight=in_flight)

    def health(self) -> Health:
        """Return the server's state now, an inference included: neither retried nor subject to the circuit."""
        self._check_open()
        calls = health_calls(self._deadline())
        outcomes: list[Outcome] = []
        for call in calls:
            try:
                outcomes.append(self._transport.send(call))
            except FaceAttributesError as error:
                outcomes.append(error)
        return Health.of(calls, outcomes, url=self.url)

    def statistics(self) -> tuple[ModelStatistics, ...]:
        """Return what each model has done since it was loaded."""
        self._check_open()
        return statistics_of(self._transport.send(Call(STATISTICS)))

    def model_config(self, model: str) -> Reply:
        """Return the configuration that the server runs a model with, as Triton's ModelConfig in JSON."""
        self._check_open()
        return self._transport.send(Call(MODEL_CONFIG, {"name": model}))

    def _open_transport(self, *, shared_memory: bool) -> Transport:
        transport = GrpcTransport(self._endpoint) if self._endpoint.is_grpc else HttpTransport(self._endpoint)
        if not shared_memory:
            return transport
        from clients.wire.shared_memory import SharedMemoryTransport  # POSIX only, unlike the rest

        return SharedMemoryTransport(transport, self._endpoint.authority)

    def _predict_chunk(self, images: Sequence[ImageLike]) -> list[Result]:
        """Ask for at most `_chunk_size` images, in one request for all that can be read."""
        prepared = prepare(images, encode=self._encode)
        readable = [image for image in prepared if not isinstance(image, InvalidImage)]
        try:
            answers: Sequence[Result] = faces_of(self._infer(self._model, stack(readable))) if readable else []
        except InvalidImage as error:  # the server refused an encoded image, which travels alone
            answers = [error]
        return results_of(images, prepared, answers)

    def _infer(self, model: str, array: NDArray[Any]) -> Predictions:
        return predictions_of(self._ask(model, array), count=len(array), url=self.url)

    def _ask(self, model: str, array: NDArray[Any], parameters: Parameters | None = None) -> Reply:
        """Ask a model, and again while the server is unavailable or busy and `retry_for_s` lasts."""
        self._check_open()
        with self._circuit.guard(self.url):
            return Retrying(**self._retry_options)(self._attempt, model, array, parameters)

    def _attempt(self, model: str, array: NDArray[Any], parameters: Parameters | None) -> Reply:
        """Ask a model once; before its first answer compare its contract."""
        deadline = self._deadline()
        with self._noticing_loss():
            if model not in self._checked:
                metadata = Call(MODEL_METADATA, {"name": model}, deadline=deadline)
                self._accept(model, self._transport.send(metadata))
            call = infer_call(model, array, parameters, deadline=deadline)
            with refused_images(call):
                return self._transport.send(call)
