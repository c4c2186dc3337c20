"""FastAPI + PyTorch.

PEER_MODEL=model.pt2 PEER_PORT=8100 .venv-peers/bin/python -m loadtest.compare.peers.fastapi_pytorch

The model is a program of torch.export, by convert.export_torch. Load no stranger's: PyTorch may unpickle parts of it.

Float32, channels_last, compiled and with weights frozen into the graph; the rest is that of fastapi_onnxruntime. Tried
in process, two callers of one thread, images/s: eager 85, channels_last 101, compiled too 118, frozen too 149; one
caller of two threads: 39, 56, 66 and 106. (0.3 s each while others used the cores: only their order counts.)

Tried as a server, images/s and p99 in ms at 16 in flight (conditions: docs/compare.md):

* a process a core, each with one thread: 111 / 173
* one process with a thread a core: 102 / 285
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import torch
import uvicorn
from fastapi import Body, FastAPI
from pydantic import BaseModel

from contract.spec import IMAGE
from loadtest.compare.peers.settings import CORES, Settings, face, model, port

SETTINGS = Settings(workers=CORES, concurrency=1, threads=1).or_environment()
models: dict[str, Any] = {}


class Answer(BaseModel):
    age: float
    gender: float
    emotion: list[float]


@torch.no_grad()
def load() -> Any:
    torch.set_num_threads(SETTINGS.threads)
    network = torch.export.load(model()).module().to(memory_format=torch.channels_last)
    loaded = torch.compile(network, options={"freezing": True})
    for _ in range(3):
        loaded(torch.zeros(1, *IMAGE.dims, dtype=torch.uint8))
    return loaded


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = SETTINGS.concurrency  # 40 would fight for the cores
    models["agegendernet"] = load()
    yield
    models.clear()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> None: ...


@app.post("/predict")
@torch.no_grad()
def predict(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Answer:
    torch.set_num_threads(SETTINGS.threads)  # counts for the thread that says it, and the pool makes its own
    image = torch.from_numpy(face(body).copy())
    age, gender, emotion = models["agegendernet"](image[None])
    return Answer(age=age.item(), gender=gender.item(), emotion=emotion[0].tolist())


if __name__ == "__main__":
    uvicorn.run(
        "loadtest.compare.peers.fastapi_pytorch:app",
        port=port(),
        workers=SETTINGS.workers,
        loop="uvloop",
        http="httptools",
        log_level="warning",  # which also leaves the access log out
    )
