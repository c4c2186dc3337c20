"""The asynchronous client.

async with AsyncFaceAttributesClient("grpc://127.0.0.1:8001") as client:
    print((await client.predict("face.jpg")).to_dict())
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray
from tenacity import AsyncRetrying

from clients.calls import MODEL_CONFIG, MODEL_METADATA, STATISTICS, Call, Parameters, Reply, infer_call
from clients.client import DEFAULT_IN_FLIGHT, BaseClient, refused_images
from clients.errors import FaceAttributesError, InvalidImage
from clients.inputs import ImageLike, named, prepare, prepare_photo, results_of, split_batch, stack
from clients.messages import (
    DetectedFaces,
    FaceAttributes,
    PhotoResult,
    Result,
    detected_faces_of,
    faces_of,
    predictions_of,
)
from clients.status import Health, ModelStatistics, Outcome, health_calls, statistics_of
from clients.streams import chunked, map_ordered_async
from clients.wire.grpc import AsyncGrpcTransport
from clients.wire.http import AsyncHttpTransport
from contract.spec import MIN_FACE_PX, MIN_SCORE, MODEL_NAME, PHOTO_MODEL_NAME, Images, Predictions


class AsyncTransport(Protocol):
    """What the client needs of a transport, which connects with the first call; a test's may answer from memory."""

    async def send(self, call: Call) -> Reply:
        """Return the server's reply. Raises only errors of `clients.errors`."""

    async def close(self) -> None:
        """Release the connection."""


class AsyncFaceAttributesClient(BaseClient[AsyncTransport]):
    """Face attributes from a Triton server over gRPC or HTTP, for use within one event loop.

    Methods, options and errors are those of `FaceAttributesClient`; images are decoded in threads beside the loop.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the connection and shared memory; closing twice is fine."""
        if not self._closed:
            self._closed = True
            await self._transport.close()

    async def predict(self, image: ImageLike) -> FaceAttributes:
        """Return the attributes of the face in one image. Raises InvalidImage where it cannot be read."""
        [result] = await self._predict_chunk([image])
        if isinstance(result, InvalidImage):
            raise result
        return result

    async def predict_batch(self, images: Sequence[ImageLike]) -> list[Result]:
        """Return a result for each image, in order; in place of one that cannot be read stands its error."""
        chunks = map_ordered_async(self._predict_chunk, chunked(images, self._chunk_size), in_flight=DEFAULT_IN_FLIGHT)
        return [result async for chunk in chunks for result in chunk]

    async def predict_stream(
        self, images: Iterable[ImageLike] | AsyncIterable[ImageLike], *, in_flight: int = DEFAULT_IN_FLIGHT
    ) -> AsyncGenerator[Result, None]:
        """Yield a result for each of endless images: a request each, `in_flight` at the server, no more read ahead."""
        async with aclosing(map_ordered_async(self._predict_one, images, in_flight=in_flight)) as results:
            async for result in results:
                yield result

    async def find_faces(
        self, photo: ImageLike, *, min_score: float | None = None, min_face_px: float | None = None
    ) -> DetectedFaces:
        """Return the faces of a whole photo, largest first; an empty list where there is none.

        min_score: the detector's certainty, 0.3 to 1; min_face_px: shorter side of a face's box. None: as the server
        is configured. Raises InvalidImage for a photo that cannot be read.
        """
        limits = {MIN_SCORE: min_score, MIN_FACE_PX: min_face_px}
        sent = await asyncio.to_thread(prepare_photo, photo)
        try:
            return detected_faces_of(await self._ask(PHOTO_MODEL_NAME, sent, limits), url=self.url)
        except InvalidImage as error:
            raise named(error, photo) from error

    async def find_faces_batch(
        self, photos: Sequence[ImageLike], *, min_score: float | None = None, min_face_px: float | None = None
    ) -> list[PhotoResult]:
        """Return `find_faces` of each photo, in order; in place of one that cannot be read stands its error."""
        results = self.find_faces_stream(photos, min_score=min_score, min_face_px=min_face_px)
        return [result async for result in results]

    def find_faces_stream(
        self,
        photos: Iterable[ImageLike] | AsyncIterable[ImageLike],
        *,
        min_score: float | None = None,
        min_face_px: float | None = None,
        in_flight: int = DEFAULT_IN_FLIGHT,
    ) -> AsyncGenerator[PhotoResult, None]:
        """Yield `find_faces` of each of endless photos, `in_flight` at the server, no more read ahead."""

        async def find(photo: ImageLike) -> PhotoResult:
            try:
                return await self.find_faces(photo, min_score=min_score, min_face_px=min_face_px)
            except InvalidImage as error:
                return error

        return map_ordered_async(find, photos, in_flight=in_flight)

    async def infer(self, images: Images) -> Predictions:
        """Return predictions for canonical images, uint8 [N, 128, 128, 3], N >= 1; split above MAX_BATCH_SIZE."""
        return Predictions.concatenate([await self._infer(MODEL_NAME, batch) for batch in split_batch(images)])

    def infer_stream(
        self, batches: Iterable[Images] | AsyncIterable[Images], *, in_flight: int = DEFAULT_IN_FLIGHT
    ) -> AsyncGenerator[Predictions, None]:
        """Yield `infer` of each batch, in order, with up to `in_flight` at the server and no more read ahead."""
        return map_ordered_async(self.infer, batches, in_flight=in_flight)

    async def health(self) -> Health:
        """Return the server's state now, an inference included: neither retried nor subject to the circuit."""
        self._check_open()
        calls = health_calls(self._deadline())
        outcomes: list[Outcome] = []
        for call in calls:
            try:
                outcomes.append(await self._transport.send(call))
            except FaceAttributesError as error:
                outcomes.append(error)
        return Health.of(calls, outcomes, url=self.url)

    async def statistics(self) -> tuple[ModelStatistics, ...]:
        """Return what each model has done since it was loaded."""
        self._check_open()
        return statistics_of(await self._transport.send(Call(STATISTICS)))

    async def model_config(self, model: str) -> Reply:
        """Return the configuration that the server runs a model with, as Triton's ModelConfig in JSON."""
        self._check_open()
        return await self._transport.send(Call(MODEL_CONFIG, {"name": model}))

    def _open_transport(self, *, shared_memory: bool) -> AsyncTransport:
        transport = AsyncGrpcTransport(self._endpoint) if self._endpoint.is_grpc else AsyncHttpTransport(self._endpoint)
        if not shared_memory:
            return transport
        from clients.wire.shared_memory import AsyncSharedMemoryTransport  # POSIX only, unlike the rest

        return AsyncSharedMemoryTransport(transport, self._endpoint.authority)

    async def _predict_one(self, image: ImageLike) -> Result:
        [result] = await self._predict_chunk([image])
        return result

    async def _predict_chunk(self, images: Sequence[ImageLike]) -> list[Result]:
        """Ask for at most `_chunk_size` images, in one request for all that can be read."""
        prepared = await asyncio.to_thread(prepare, images, encode=self._encode)
        readable = [image for image in prepared if not isinstance(image, InvalidImage)]
        try:
            answers: Sequence[Result] = faces_of(await self._infer(self._model, stack(readable))) if readable else []
        except InvalidImage as error:  # the server refused an encoded image, which travels alone
            answers = [error]
        return results_of(images, prepared, answers)

    async def _infer(self, model: str, array: NDArray[Any]) -> Predictions:
        return predictions_of(await self._ask(model, array), count=len(array), url=self.url)

    async def _ask(self, model: str, array: NDArray[Any], parameters: Parameters | None = None) -> Reply:
        """Ask a model, and again while the server is unavailable or busy and `retry_for_s` lasts."""
        self._check_open()
        with self._circuit.guard(self.url):
            return await AsyncRetrying(**self._retry_options)(self._attempt, model, array, parameters)

    async def _attempt(self, model: str, array: NDArray[Any], parameters: Parameters | None) -> Reply:
        """Ask a model once; before its first answer compare its contract."""
        deadline = self._deadline()
        with self._noticing_loss():
            if model not in self._checked:
                metadata = Call(MODEL_METADATA, {"name": model}, deadline=deadline)
                self._accept(model, await self._transport.send(metadata))
            call = infer_call(model, array, parameters, deadline=deadline)
            with refused_images(call):
                return await self._transport.send(call)
