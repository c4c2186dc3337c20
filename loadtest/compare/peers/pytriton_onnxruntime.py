"""PyTriton + ONNX Runtime.

PEER_MODEL=model.onnx PEER_PORT=8100 .venv-peers/bin/python -m loadtest.compare.peers.pytriton_onnxruntime

Its documentation: an instance for each element of `infer_func`, batches by Triton's own dynamic batcher, here without a
delay: while one batch runs the next one fills.

Tried, images/s and p99 in ms at 16 in flight over gRPC (conditions: docs/compare.md):

* two instances of one thread, batches of up to 4: 152 / 122; of up to 8: 158 / 158; without batches: 103 / 192
* one instance of two threads, batches of up to 8: 152 / 128; a lone request 10 ms, not 17
"""

from __future__ import annotations

import os
import sysconfig
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from contract.spec import IMAGE, MODEL_NAME, OUTPUTS
from loadtest.compare.peers.settings import CORES, OUTPUT_NAMES, Settings, grpc_port, open_session, port, run

SETTINGS = Settings(workers=1, concurrency=CORES, threads=1, max_batch_size=4).or_environment()


def main() -> None:
    # Triton's Python backend must find the libpython of this interpreter's own version, not the system's.
    folders = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, folders))
    session = open_session(SETTINGS.threads)

    @batch
    def infer(image: Any) -> dict[str, Any]:
        return dict(zip(OUTPUT_NAMES, run(session, image), strict=True))

    config = TritonConfig(
        http_address="127.0.0.1", grpc_address="127.0.0.1", http_port=port(), grpc_port=grpc_port(), allow_metrics=False
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=MODEL_NAME,
            infer_func=[infer] * SETTINGS.concurrency,
            inputs=[Tensor(name=IMAGE.name, dtype=np.uint8, shape=IMAGE.dims)],
            outputs=[Tensor(name=tensor.name, dtype=np.float32, shape=tensor.dims) for tensor in OUTPUTS],
            config=ModelConfig(
                max_batch_size=SETTINGS.max_batch_size,
                batcher=DynamicBatcher(max_queue_delay_microseconds=round(1000 * SETTINGS.batch_wait_ms)),
            ),
        )
        triton.serve()


if __name__ == "__main__":
    main()
