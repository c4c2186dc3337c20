"""BentoML + ONNX Runtime.

PEER_MODEL=model.onnx .venv-peers/bin/bentoml serve loadtest.peers.bentoml_onnxruntime:FaceAttributes --port 8100
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import ContentType

from loadtest.peers.settings import CORES, Settings, face, open_session, run

SETTINGS = Settings(workers=CORES, concurrency=1, threads=1, max_batch_size=4).or_environment()
FRONTS = int(os.environ.get("PEER_FRONTS", "1"))


@bentoml.service(
    workers=SETTINGS.workers,
    threads=SETTINGS.concurrency,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Direct:
    def __init__(self) -> None:
        self.session = open_session(SETTINGS.threads)

    @bentoml.api
    def predict(self, body: Annotated[bytes, ContentType("application/octet-stream")], /) -> dict[str, Any]:
        age, gender, emotion = run(self.session, face(body)[None])
        return {"age": age.item(), "gender": gender.item(), "emotion": emotion[0].tolist()}


@bentoml.service(
    workers=SETTINGS.workers,
    threads=SETTINGS.concurrency,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    runner_connection={"max_requests": 1_000_000_000},
)
class Model:
    def __init__(self) -> None:
        self.session = open_session(SETTINGS.threads)

    @bentoml.api(batchable=True, max_batch_size=SETTINGS.max_batch_size, max_latency_ms=60_000)
    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate(run(self.session, images), axis=1)


@bentoml.service(
    workers=FRONTS, traffic={"timeout": 60}, logging={"access": {"enabled": False}}, metrics={"enabled": False}
)
class Front:
    model = bentoml.depends(Model)

    @bentoml.api
    async def predict(self, body: Annotated[bytes, ContentType("application/octet-stream")], /) -> dict[str, Any]:
        answers = await self.model.to_async.predict(face(body)[None])
        row = answers[0].tolist()
        return {"age": row[0], "gender": row[1], "emotion": row[2:]}


FaceAttributes = {"direct": Direct, "front": Front}[os.environ.get("PEER_KIND", "direct")]
