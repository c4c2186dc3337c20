"""FastAPI + ONNX Runtime.

    PEER_MODEL=model.onnx PEER_PORT=8100 .venv-peers/bin/python -m loadtest.compare.peers.fastapi_onnxruntime

As fastapi.tiangolo.com has it: a `def` endpoint, which runs in the thread pool, since inference blocks; the model
opened in `lifespan`; uvicorn with uvloop and httptools. FastAPI has no batching of its own.

Tried, images/s and p99 in ms at 16 in flight (conditions: docs/compare.md):

* one process, a thread a core, one session of one thread a call: 146, 133 / 196, 180 (two runs)
* a process a core, each with one thread: 143 / 176, and a median of 167 ms, not 102;
  at INT8 342 / 154, against 296, 315 / 92, 73 with threads
* one process, one call at a time by all cores: 128 / 149; a lone request 8 ms, not 14
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import uvicorn
from fastapi import Body, FastAPI
from pydantic import BaseModel

from loadtest.compare.peers.settings import CORES, Settings, face, open_session, port, run

SETTINGS = Settings(workers=1, concurrency=CORES, threads=1).or_environment()
models: dict[str, Any] = {}


class Answer(BaseModel):
    age: float
    gender: float
    emotion: list[float]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = SETTINGS.concurrency  # 40 would fight for the cores
    models["agegendernet"] = open_session(SETTINGS.threads)
    yield
    models.clear()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> None: ...


@app.post("/predict")
def predict(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Answer:
    age, gender, emotion = run(models["agegendernet"], face(body)[None])
    return Answer(age=age.item(), gender=gender.item(), emotion=emotion[0].tolist())


if __name__ == "__main__":
    uvicorn.run(
        "loadtest.compare.peers.fastapi_onnxruntime:app",
        port=port(),
        workers=SETTINGS.workers,
        loop="uvloop",
        http="httptools",
        log_level="warning",  # which also leaves the access log out
    )
