"""The asynchronous client.

async with AsyncFaceAttributesClient("grpc://127.0.0.1:8001") as client:
    print((await client.predict("face.jpg")).to_dict())
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from tenacity import AsyncRetrying

from clients.aio_transports import AsyncTransport, open_transport
from clients.base import DEFAULT_IN_FLIGHT, BaseClient, named
from clients.checks import batches_of
from clients.errors import InvalidImage, ServerUnavailable
from clients.faces import Face, ImageLike
from clients.protocol import Flow
from clients.status import Health
from clients.streams import chunked, map_ordered_async
from contract.spec import Images, Predictions

T = TypeVar("T")


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
            await self._carry(self._close_flow())
            await self._transport.close()

    async def predict(self, image: ImageLike) -> Face:
        """Attributes of the face in one image. Raises InvalidImage where it cannot be read."""
        [result] = await self._predict_chunk([image])
        if isinstance(result, InvalidImage):
            raise result
        return result

    async def predict_batch(self, images: Sequence[ImageLike]) -> list[Face | InvalidImage]:
        """A result for each image, in order; in place of one that cannot be read stands its error."""
        chunks = map_ordered_async(self._predict_chunk, chunked(images, self._chunk_size), in_flight=DEFAULT_IN_FLIGHT)
        return [result async for chunk in chunks for result in chunk]

    async def predict_stream(
        self, images: Iterable[ImageLike] | AsyncIterable[ImageLike], *, in_flight: int = DEFAULT_IN_FLIGHT
    ) -> AsyncGenerator[Face | InvalidImage, None]:
        """The same for images without end: a request each, up to `in_flight` at the server, no more read ahead."""
        async with aclosing(map_ordered_async(self._predict_one, images, in_flight=in_flight)) as results:
            async for [result] in results:
                yield result

    async def infer(self, images: Images) -> Predictions:
        """Predictions for canonical images, uint8 [N, 128, 128, 3], N >= 1; split where N is above MAX_BATCH_SIZE."""
        batches = batches_of(images)
        return Predictions.concatenate([await self._run(partial(self._infer_flow, batch)) for batch in batches])

    def infer_stream(
        self, batches: Iterable[Images] | AsyncIterable[Images], *, in_flight: int = DEFAULT_IN_FLIGHT
    ) -> AsyncGenerator[Predictions, None]:
        """`infer` of each batch, in order, with up to `in_flight` requests at the server and no more read ahead."""
        return map_ordered_async(self.infer, batches, in_flight=in_flight)

    async def health(self) -> Health:
        """The server's state now: neither retried nor subject to the circuit."""
        self._check_open()
        return await self._carry(self._health_flow())

    def _open_transport(self) -> AsyncTransport:
        return open_transport(self._connection)

    async def _predict_one(self, image: ImageLike) -> list[Face | InvalidImage]:
        return await self._predict_chunk([image])

    async def _predict_chunk(self, images: Sequence[ImageLike]) -> list[Face | InvalidImage]:
        prepared = await asyncio.to_thread(self._prepare, images)
        return named(images, await self._run(partial(self._predict_flow, prepared)))

    async def _run(self, make_flow: Callable[[], Flow[T]]) -> T:
        """Carry a flow to its end, from the start again while the server is unavailable."""
        self._check_open()
        with self._circuit.guard(self.url):
            return await AsyncRetrying(**self._retry_options)(self._attempt, make_flow)

    async def _attempt(self, make_flow: Callable[[], Flow[T]]) -> T:
        try:
            return await self._carry(make_flow())
        except ServerUnavailable:
            self._forget_connection()
            raise

    async def _carry(self, flow: Flow[T]) -> T:
        """Take each call that the flow yields to the server, and its reply or error back."""
        try:
            call = next(flow)
            while True:
                try:
                    reply = await self._transport.send(call)
                except BaseException as error:  # whatever it is, the flow has to let go of what it holds
                    call = flow.throw(error)
                else:
                    call = flow.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
