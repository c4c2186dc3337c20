"""LitServe + ONNX Runtime.

PEER_MODEL=model.onnx PEER_PORT=8100 .venv-peers/bin/python -m loadtest.peers.litserve_onnxruntime
"""

import os
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from contract.spec import Images
from loadtest.peers.settings import CORES, Settings, face, open_session, port, run

SETTINGS = Settings(workers=CORES, concurrency=1, threads=1, max_batch_size=4, batch_wait_ms=1.0).or_environment()
FAST_QUEUE = os.environ.get("PEER_FAST_QUEUE", "0") == "1"
API_SERVERS = int(os.environ.get("PEER_API_SERVERS", "1"))


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
        num_api_servers=API_SERVERS,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
