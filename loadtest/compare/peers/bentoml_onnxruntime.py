"""BentoML + ONNX Runtime.

    PEER_MODEL=model.onnx .venv-peers/bin/bentoml serve \\
        loadtest.compare.peers.bentoml_onnxruntime:FaceAttributes --port 8100

A worker a core and raw bytes as root input. Adaptive batching takes arrays or lists, hence JSON or, as in its
documentation, a service in front that turns a request into an array.

Tried, images/s and p99 in ms at 16 in flight (conditions: docs/compare.md):

* two workers of one thread, raw bytes, without batches: 123, 123 / 175, 195 (two runs)
* a front and two workers with adaptive batches of up to 4 (PEER_SERVICE=Front): 118 / 326. With the default
  `runner_connection`, 14 % of the requests failed: every 100 requests the client between the services closes its
  connections, other requests' among them
"""

from __future__ import annotations

from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import ContentType

from loadtest.compare.peers.settings import CORES, Settings, face, open_session, run

SETTINGS = Settings(workers=CORES, concurrency=1, threads=1, max_batch_size=4).or_environment()
QUIET: dict[str, Any] = {"logging": {"access": {"enabled": False}}, "metrics": {"enabled": False}}
Body = Annotated[bytes, ContentType("application/octet-stream")]


@bentoml.service(workers=SETTINGS.workers, threads=SETTINGS.concurrency, **QUIET)
class FaceAttributes:
    def __init__(self) -> None:
        self.session = open_session(SETTINGS.threads)

    @bentoml.api
    def predict(self, body: Body, /) -> dict[str, Any]:
        age, gender, emotion = run(self.session, face(body)[None])
        return {"age": age.item(), "gender": gender.item(), "emotion": emotion[0].tolist()}


@bentoml.service(
    workers=SETTINGS.workers, threads=SETTINGS.concurrency, runner_connection={"max_requests": 1_000_000_000}, **QUIET
)
class Batches:
    def __init__(self) -> None:
        self.session = open_session(SETTINGS.threads)

    @bentoml.api(batchable=True, max_batch_size=SETTINGS.max_batch_size, max_latency_ms=60_000)
    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate(run(self.session, images), axis=1)


@bentoml.service(**QUIET)
class Front:
    model = bentoml.depends(Batches)

    @bentoml.api
    async def predict(self, body: Body, /) -> dict[str, Any]:
        answers = await self.model.to_async.predict(face(body)[None])
        age, gender, *emotion = answers[0].tolist()
        return {"age": age, "gender": gender, "emotion": emotion}
