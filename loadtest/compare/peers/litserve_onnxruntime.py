"""LitServe + ONNX Runtime.

PEER_MODEL=model.onnx PEER_PORT=8100 .venv-peers/bin/python -m loadtest.compare.peers.litserve_onnxruntime

Its documentation: a worker a core on CPUs, `fast_queue` from 100 requests/s, batches of what came within
`batch_timeout`. Raw bytes by the type of `decode_request`'s argument, as with FastAPI beneath it.

Tried, images/s and p99 in ms at 16 in flight (conditions: docs/compare.md):

* two workers of one thread, batches of 4 within 1 ms: 149 / 143; with the fast queue 152 / 135
* batches of 8 within 1 ms: 154 / 162; within 3 ms: 147 / 165
* without batches: 119 / 211
* idle, the two batching workers together took 0.22 cores: they look for requests every millisecond; a `batch_timeout`
  of 0 was not tried, since by its source the loop then never waits
"""

import os
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from contract.spec import Images
from loadtest.compare.peers.settings import CORES, Settings, face, open_session, port, run

SETTINGS = Settings(workers=CORES, concurrency=1, threads=1, max_batch_size=4, batch_wait_ms=1.0).or_environment()
FAST_QUEUE = os.environ.get("PEER_FAST_QUEUE", "1") == "1"


class FaceAttributes(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 (LitServe calls it by name)
        self.session = open_session(SETTINGS.threads)

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Images:
        return face(request)

    def predict(self, x: Images) -> list[dict[str, Any]] | dict[str, Any]:
        if x.ndim == 3:
            return answers(self.session, x[None])[0]
        return answers(self.session, x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


def answers(session: Any, images: Images) -> list[dict[str, Any]]:
    age, gender, emotion = (
        np.squeeze(values, 1) if values.shape[1] == 1 else values for values in run(session, images)
    )
    return [
        {"age": a, "gender": g, "emotion": e}
        for a, g, e in zip(age.tolist(), gender.tolist(), emotion.tolist(), strict=True)
    ]


if __name__ == "__main__":
    api = FaceAttributes(max_batch_size=SETTINGS.max_batch_size, batch_timeout=SETTINGS.batch_wait_ms / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=SETTINGS.workers, fast_queue=FAST_QUEUE)
    server.run(
        host="127.0.0.1",
        port=port(),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
