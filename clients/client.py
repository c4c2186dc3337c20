"""The synchronous client.

with FaceAttributesClient("grpc://127.0.0.1:8001") as client:
    print(client.predict("face.jpg").to_dict())
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from clients.base import DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S, BaseClient, Flow, batches_of
from clients.errors import FaceAttributesError, InvalidImage
from clients.faces import Face, ImageLike, faces, load
from clients.transports import Transport, open_transport
from contract.spec import Images, Predictions

T = TypeVar("T")
Item = TypeVar("Item")


class FaceAttributesClient(BaseClient):
    """Face attributes from a Triton server over gRPC or HTTP. One client serves any number of threads."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
        transport: Transport | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, headers=headers, **options)
        self._transport = transport or open_transport(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def predict(self, image: ImageLike) -> Face:
        """Attributes of the face in one image. Raises InvalidImage where it cannot be read."""
        return faces(self.infer(load(image)[None]))[0]

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Face | InvalidImage]:
        """A result for each image, in order; in place of one that cannot be read stands its error."""
        loaded = [_load_or_error(image) for image in images]
        readable = [image for image in loaded if not isinstance(image, InvalidImage)]
        answers = iter(faces(self.infer(np.stack(readable))) if readable else ())
        return [image if isinstance(image, InvalidImage) else next(answers) for image in loaded]

    def infer(self, images: Images) -> Predictions:
        """Predictions for canonical images, uint8 [N, 128, 128, 3], N >= 1; split where N is above MAX_BATCH_SIZE."""
        return Predictions.concatenate(self._run(self._infer_flow(batch)) for batch in batches_of(images))

    def infer_stream(self, batches: Iterable[Images], *, in_flight: int = DEFAULT_IN_FLIGHT) -> Iterator[Predictions]:
        """`infer` of each batch, in order, with up to `in_flight` requests at the server and no more read ahead."""
        return _map_ordered(self.infer, batches, in_flight=in_flight)

    def _run(self, flow: Flow[T]) -> T:
        """Carry each call that the flow yields to the server, and its reply or error back."""
        try:
            call = next(flow)
            while True:
                try:
                    reply = self._transport.send(call)
                except FaceAttributesError as error:
                    call = flow.throw(error)
                else:
                    call = flow.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result


def _load_or_error(image: ImageLike) -> Images | InvalidImage:
    try:
        return load(image)
    except InvalidImage as error:
        return error


def _map_ordered(function: Callable[[Item], T], items: Iterable[Item], *, in_flight: int) -> Iterator[T]:
    """Results in order; twice `in_flight` items are taken ahead, so that a slow first one does not idle the others."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(in_flight, thread_name_prefix="face-attributes") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
