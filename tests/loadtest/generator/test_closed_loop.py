"""The light load generator, on the real server and on one that answers wrongly."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from contract.spec import OUTPUTS, Images
from loadtest.faces import load_pictures
from loadtest.generator.closed_loop import Load, LoadError, grpc_load, grpc_open_loop, http_load
from loadtest.generator.payloads import (
    check_grpc_answer,
    check_http_answer,
    http_encoded_requests,
    http_tensor_requests,
)
from serving.server import TritonServer

WINDOW = {"seconds": 0.5, "warm_up_s": 0.1}


@pytest.fixture(scope="module")
def encoded() -> list[bytes]:
    return [picture.encoded for picture in load_pictures("").items[:4]]


def assert_measured(load: Load, *, in_flight: int) -> None:
    assert not load.errors
    assert load.throughput == len(load.latencies_ms) / load.seconds > 0
    assert 0 < load.p50_ms <= load.p99_ms < 5_000
    assert 0 < load.cpu_ms_per_image < 100
    # Little's law: what is in flight is throughput x latency; requests across the window's edges blur it.
    assert load.latencies_ms.sum() <= in_flight * (load.seconds * 1e3 + load.latencies_ms.max())


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("way", ["tensor", "shared memory", "encoded"])
def test_grpc_answers_are_counted(
    triton_server: TritonServer, noise: Images, encoded: list[bytes], way: str, in_flight: int
) -> None:
    pictures = encoded if way == "encoded" else None
    shared = way == "shared memory"
    load = grpc_load(
        triton_server.grpc_url, noise, in_flight=in_flight, shared_memory=shared, encoded=pictures, **WINDOW
    )
    assert_measured(load, in_flight=in_flight)


@pytest.mark.parametrize("model", ["agegendernet", "face_attributes"])
def test_http_answers_are_counted(triton_server: TritonServer, noise: Images, encoded: list[bytes], model: str) -> None:
    bodies, headers = http_tensor_requests(noise) if model == "agegendernet" else http_encoded_requests(encoded)
    url = f"{triton_server.http_url}/v2/models/{model}/infer"
    assert_measured(http_load(url, bodies, headers, check_http_answer, in_flight=2, **WINDOW), in_flight=2)


def test_an_open_loop_sends_at_its_rate(triton_server: TritonServer, noise: Images) -> None:
    load = grpc_open_loop(triton_server.grpc_url, noise, rate_per_s=20, seconds=1.0, warm_up_s=0.1)
    assert not load.errors
    assert len(load.latencies_ms) == pytest.approx(20, abs=1)


def test_a_load_that_cannot_be_made_says_why(triton_server: TritonServer, noise: Images) -> None:
    with pytest.raises(LoadError, match=r"127\.0\.0\.1:1: .*onnect"):
        http_load("http://127.0.0.1:1/", [b""], {}, check_http_answer, in_flight=1, **WINDOW)
    url = f"{triton_server.http_url}/v2/models/absent/infer"
    with pytest.raises(LoadError, match="HTTP status 40"):
        http_load(url, *http_tensor_requests(noise), check_http_answer, in_flight=1, **WINDOW)


def test_an_error_of_a_grpc_server_is_spelt_out(triton_server: TritonServer) -> None:
    with pytest.raises(LoadError, match=r"[A-Z_]+: .*not an image"):
        grpc_load(triton_server.grpc_url, np.empty(0), in_flight=1, encoded=[b"no picture at all"], **WINDOW)
    large = b"\xff\xd8\xff" + bytes(3_000_000)  # more than the server takes at once, so sent piece by piece
    with pytest.raises(LoadError, match=r"[A-Z_]+: .*(truncated|not an image)"):
        grpc_load(triton_server.grpc_url, np.empty(0), in_flight=1, encoded=[large], **WINDOW)


def test_a_check_that_another_process_cannot_import_is_refused() -> None:
    with pytest.raises(ValueError, match="importable module"):
        http_load("http://127.0.0.1:1/", [b""], {}, lambda _: None, in_flight=1, **WINDOW)


@pytest.fixture
def failing_after_the_first() -> Iterator[str]:
    """An HTTP server that answers the first request with an empty 200 and all others with a 503."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        answered = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(0.01)
            self.send_response(200 if Handler.answered == 0 else 503)
            Handler.answered += 1
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_failed_requests_are_errors_and_no_answers(failing_after_the_first: str) -> None:
    load = http_load(failing_after_the_first, [b"x"], {}, len, in_flight=2, **WINDOW)
    assert load.throughput == 0
    assert np.isnan(load.p50_ms)
    [(message, count)] = load.errors.items()
    assert "HTTP status 503" in message
    assert count > 1


def answer(values: dict[str, np.ndarray]) -> bytes:
    message = service_pb2.ModelInferResponse()
    for name, array in values.items():
        message.outputs.add(name=name, datatype="FP32", shape=array.shape)
        message.raw_output_contents.append(array.tobytes())
    return message.SerializeToString()


def test_wrong_answers_are_found_out() -> None:
    right = {tensor.name: np.zeros((1, *tensor.dims), np.float32) for tensor in OUTPUTS}
    check_grpc_answer(answer(right))
    wrong = {
        "outputs": {"age": right["age"]},
        "shape": {**right, "emotion": np.zeros((1, 7), np.float32)},
        "not finite": {**right, "age": np.full((1, 1), np.nan, np.float32)},
    }
    for values in wrong.values():
        with pytest.raises(ValueError, match="the answer has"):
            check_grpc_answer(answer(values))
