"""The synchronous client.

with FaceAttributesClient("grpc://127.0.0.1:8001") as client:
    print(client.predict("face.jpg").to_dict())
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Self, TypeVar

from tenacity import Retrying

from clients.base import DEFAULT_IN_FLIGHT, BaseClient, named
from clients.checks import batches_of
from clients.errors import InvalidImage, ServerUnavailable
from clients.faces import Face, ImageLike
from clients.protocol import Flow
from clients.status import Health
from clients.streams import chunked, map_ordered
from clients.transports import Transport, open_transport
from contract.spec import Images, Predictions

T = TypeVar("T")


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
            self._carry(self._close_flow())
            self._transport.close()

    def predict(self, image: ImageLike) -> Face:
        """Attributes of the face in one image. Raises InvalidImage where it cannot be read."""
        [result] = self._predict_chunk([image])
        if isinstance(result, InvalidImage):
            raise result
        return result

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Face | InvalidImage]:
        """A result for each image, in order; in place of one that cannot be read stands its error."""
        return list(self._predict_chunks(chunked(images, self._chunk_size), in_flight=DEFAULT_IN_FLIGHT))

    def predict_stream(
        self, images: Iterable[ImageLike], *, in_flight: int = DEFAULT_IN_FLIGHT
    ) -> Iterator[Face | InvalidImage]:
        """The same for images without end: a request each, up to `in_flight` at the server, no more read ahead."""
        return self._predict_chunks(chunked(images, 1), in_flight=in_flight)

    def infer(self, images: Images) -> Predictions:
        """Predictions for canonical images, uint8 [N, 128, 128, 3], N >= 1; split where N is above MAX_BATCH_SIZE."""
        return Predictions.concatenate(self._run(partial(self._infer_flow, batch)) for batch in batches_of(images))

    def infer_stream(self, batches: Iterable[Images], *, in_flight: int = DEFAULT_IN_FLIGHT) -> Iterator[Predictions]:
        """`infer` of each batch, in order, with up to `in_flight` requests at the server and no more read ahead."""
        return map_ordered(self.infer, batches, in_flight=in_flight)

    def health(self) -> Health:
        """The server's state now: neither retried nor subject to the circuit."""
        self._check_open()
        return self._carry(self._health_flow())

    def _open_transport(self) -> Transport:
        return open_transport(self._connection)

    def _predict_chunks(
        self, chunks: Iterable[Sequence[ImageLike]], *, in_flight: int
    ) -> Iterator[Face | InvalidImage]:
        return chain.from_iterable(map_ordered(self._predict_chunk, chunks, in_flight=in_flight))

    def _predict_chunk(self, images: Sequence[ImageLike]) -> list[Face | InvalidImage]:
        return named(images, self._run(partial(self._predict_flow, self._prepare(images))))

    def _run(self, make_flow: Callable[[], Flow[T]]) -> T:
        """Carry a flow to its end, from the start again while the server is unavailable."""
        self._check_open()
        with self._circuit.guard(self.url):
            result: T = Retrying(**self._retry_options)(self._attempt, make_flow)
            return result

    def _attempt(self, make_flow: Callable[[], Flow[T]]) -> T:
        try:
            return self._carry(make_flow())
        except ServerUnavailable:
            self._forget_connection()
            raise

    def _carry(self, flow: Flow[T]) -> T:
        """Take each call that the flow yields to the server, and its reply or error back."""
        try:
            call = next(flow)
            while True:
                try:
                    reply = self._transport.send(call)
                except BaseException as error:  # whatever it is, the flow has to let go of what it holds
                    call = flow.throw(error)
                else:
                    call = flow.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
