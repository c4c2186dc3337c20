"""What both clients do without a socket: preparing images, the contract, reading replies.

A piece of work that needs the server is a *flow*, a generator that yields calls, receives replies and returns the
result. The synchronous and the asynchronous client differ only in how they carry a yielded call to the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike, fspath
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np

from clients.checks import check_contract, predictions_of
from clients.connection import Connection, Tls
from clients.errors import ClientClosed, FaceAttributesError, InvalidImage, InvalidInput
from clients.faces import Face, ImageLike, canonical, encoded, faces_of
from clients.protocol import INFER, LIVE, MODEL_METADATA, READY, SERVER_METADATA, STATISTICS, Call, Flow, Tensor
from clients.resilience import Circuit, retry_options
from clients.status import Health
from contract.spec import ENCODED_IMAGE, ENSEMBLE_NAME, IMAGE, MAX_BATCH_SIZE, MODEL_NAME, Images, Predictions

if TYPE_CHECKING:
    from clients.shared_memory import SharedMemory

TransportT = TypeVar("TransportT")
Wire = Literal["tensor", "encoded"]
Prepared = Sequence[Images | bytes | InvalidImage]

DEFAULT_IN_FLIGHT = 16
_INPUTS = {MODEL_NAME: IMAGE, ENSEMBLE_NAME: ENCODED_IMAGE}


class BaseClient(Generic[TransportT]):
    """State and logic common to `FaceAttributesClient` and `AsyncFaceAttributesClient`.

    url: grpc://, grpcs://, http:// or https://host:port
    timeout_s: for one request; no call takes longer than timeout_s + retry_for_s
    retry_for_s: how long a server that is unavailable is tried again; 0 for never
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
        self._connection = Connection.to(url, timeout_s=timeout_s, headers=headers, tls=tls, compress=compress)
        self._encoded = wire == "encoded"
        self._retry_options = retry_options(retry_for_s)
        self._circuit = circuit or Circuit()
        self._checked: set[str] = set()  # models whose contract was compared on this connection
        self._shared = _shared_memory(self._connection) if shared_memory else None
        self._closed = False
        self._transport = transport or self._open_transport()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        return self._connection.url

    def _open_transport(self) -> TransportT:
        raise NotImplementedError

    @property
    def _chunk_size(self) -> int:
        """Images in a request; encoded ones go alone, so that the server refuses a bad one alone."""
        return 1 if self._encoded else MAX_BATCH_SIZE

    def _prepare(self, images: Sequence[ImageLike]) -> Prepared:
        """Read and, unless the server is to do it, decode: the part of a prediction that takes time here."""
        return [_value_or_error(image, encode=self._encoded) for image in images]

    def _predict_flow(self, images: Prepared) -> Flow[list[Face | InvalidImage]]:
        """A result for each of at most `_chunk_size` images, or the error that belongs in its place."""
        readable = [image for image in images if not isinstance(image, InvalidImage)]
        answers: Iterator[Face | InvalidImage] = iter(())
        if readable and self._encoded:
            answers = iter((yield from self._encoded_flow(readable)))
        elif readable:
            answers = iter(faces_of((yield from self._infer_flow(np.stack(readable)))))
        return [image if isinstance(image, InvalidImage) else next(answers) for image in images]

    def _encoded_flow(self, files: Sequence[Images | bytes]) -> Flow[Sequence[Face | InvalidImage]]:
        yield from self._check_contract_flow(ENSEMBLE_NAME)
        tensor = Tensor(ENCODED_IMAGE, np.array(files, object).reshape(-1, *ENCODED_IMAGE.dims))
        try:
            outputs = yield Call(INFER, {"model_name": ENSEMBLE_NAME}, tensor)
        except InvalidInput as error:
            return [InvalidImage(str(error))]
        return faces_of(predictions_of(outputs, count=len(files), url=self.url))

    def _infer_flow(self, images: Images) -> Flow[Predictions]:
        """Predictions of 1 to MAX_BATCH_SIZE canonical images."""
        yield from self._check_contract_flow(MODEL_NAME)
        if self._shared:
            yield from self._shared.register_flow()
        with self._shared.lend(images) if self._shared else nullcontext() as region:
            outputs = yield Call(INFER, {"model_name": MODEL_NAME}, Tensor(IMAGE, images, region))
        return predictions_of(outputs, count=len(images), url=self.url)

    def _check_contract_flow(self, model: str) -> Flow[None]:
        if model not in self._checked:
            metadata = yield Call(MODEL_METADATA, {"name": model})
            check_contract(metadata, model, _INPUTS[model], url=self.url)
            self._checked.add(model)

    def _health_flow(self) -> Flow[Health]:
        live, ready = (yield Call(LIVE)), (yield Call(READY))
        server, statistics = (yield Call(SERVER_METADATA)), (yield Call(STATISTICS))
        return Health.of({**live, **ready, **server, **statistics})

    def _close_flow(self) -> Flow[None]:
        self._closed = True
        try:
            if self._shared:
                yield from self._shared.close_flow()
        except FaceAttributesError:
            pass  # a server that is gone has nothing to be told

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"{self!r} is closed; open another one")

    def _forget_connection(self) -> None:
        """What comes up at the address after a failure may be another server."""
        self._checked.clear()
        if self._shared:
            self._shared.forget_registration()


def _value_or_error(image: ImageLike, *, encode: bool) -> Images | bytes | InvalidImage:
    try:
        return encoded(image) if encode else canonical(image)
    except InvalidImage as error:
        return error


def named(images: Sequence[ImageLike], results: Sequence[Face | InvalidImage]) -> list[Face | InvalidImage]:
    """The results, with the path in the error of an image that was given as one."""
    return [
        InvalidImage(f"{fspath(image)}: {result}")
        if isinstance(result, InvalidImage) and isinstance(image, str | PathLike)
        else result
        for image, result in zip(images, results, strict=True)
    ]


def _shared_memory(connection: Connection) -> SharedMemory:
    from clients.shared_memory import SharedMemory  # POSIX only, unlike the rest

    return SharedMemory(connection.authority)
