from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tenacity import RetryCallState, Retrying

from clients import (
    AsyncFaceAttributesClient,
    Circuit,
    CircuitOpen,
    ContractMismatch,
    DeadlineExceeded,
    FaceAttributesClient,
    InvalidInput,
    ServerBusy,
    ServerUnavailable,
)
from clients.calls import INFER, MODEL_METADATA, Call, Operation, Reply, infer_call
from clients.wire import grpc, http
from clients.wire.endpoint import Endpoint
from clients.wire.resilience import retry_options
from contract.samples import load_samples
from contract.spec import IMAGE, MODEL_NAME, OUTPUTS, Images, Predictions
from evaluation.run import evaluate
from serving.server import ANY_PORTS, TritonServer
from tests.clients.material import make_dataset

ONE_IMAGE = np.zeros((1, *IMAGE.dims), np.uint8)
ANSWERS = {t.name: np.full((1, *t.dims), 0.5, np.float32) for t in OUTPUTS}


def metadata(input_name: str = IMAGE.name) -> Reply:
    inputs = [{"name": input_name, "datatype": IMAGE.dtype, "shape": [-1, *IMAGE.dims]}]
    return {
        "inputs": inputs,
        "outputs": [{"name": t.name, "datatype": t.dtype, "shape": [-1, *t.dims]} for t in OUTPUTS],
    }


class Script:
    """A transport that answers or fails as told, operation by operation, and counts."""

    def __init__(self, *steps: Reply | Exception) -> None:
        self.steps = list(steps)
        self.sent: list[Operation] = []

    def send(self, call: Call) -> Reply:
        self.sent.append(call.operation)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None: ...


def test_an_unavailable_server_is_tried_again_and_its_contract_compared_again() -> None:
    script = Script(metadata(), ServerUnavailable("reset"), metadata(), ANSWERS, ANSWERS)
    client = FaceAttributesClient("grpc://host", transport=script)
    assert len(client.infer(ONE_IMAGE)) == 1
    client.infer(ONE_IMAGE)
    assert script.sent == [MODEL_METADATA, INFER, MODEL_METADATA, INFER, INFER]


def test_a_server_that_comes_back_with_another_model_is_noticed() -> None:
    script = Script(metadata(), ServerUnavailable("reset"), metadata("input"))
    with pytest.raises(ContractMismatch, match="input UINT8"):
        FaceAttributesClient("grpc://host", transport=script).infer(ONE_IMAGE)


@pytest.mark.parametrize("error", [InvalidInput("no"), DeadlineExceeded("late"), ContractMismatch("other")])
def test_what_a_retry_cannot_help_is_not_tried_again(error: Exception) -> None:
    script = Script(metadata(), error)
    with pytest.raises(type(error)):
        FaceAttributesClient("grpc://host", transport=script, retry_for_s=60).infer(ONE_IMAGE)
    assert script.sent == [MODEL_METADATA, INFER]


def test_a_busy_server_is_tried_again_after_a_longer_pause_and_opens_no_circuit() -> None:
    busy = ServerBusy("try again later")
    script = Script(metadata(), busy, ANSWERS, busy, ANSWERS)
    client = FaceAttributesClient("grpc://host", transport=script, retry_for_s=60, circuit=Circuit(failures_to_open=1))
    started = time.monotonic()
    for _ in range(2):
        client.infer(ONE_IMAGE)
    assert time.monotonic() - started >= 2 * 0.25
    assert script.sent == [MODEL_METADATA, *[INFER] * 4]  # it is the same server still
    first = [_pause_s(1, busy) for _ in range(200)]
    assert min(first) >= 0.25
    assert max(first) > 5 * max(_pause_s(1, ServerUnavailable("reset")) for _ in range(200))
    assert max(_pause_s(4, busy) for _ in range(200)) > 4


def _pause_s(attempt: int, error: Exception) -> float:
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    wait: Callable[[RetryCallState], float] = retry_options(60)["wait"]
    return wait(state)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("too many images are waiting; try again later", ServerBusy),
        ("[agegendernet] Exceeds maximum queue size", ServerBusy),
        ("Request timeout expired", DeadlineExceeded),
        ("Stub process 'agegendernet_0_0' is not healthy.", ServerUnavailable),
        ("connection refused", ServerUnavailable),
    ],
)
def test_the_words_of_a_refusal_say_more_than_its_status(words: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=re.escape(words)):
        http.decode(Call(INFER), 503, {}, json.dumps({"error": words}).encode(), url="http://host")
    if error is not ServerUnavailable or "Stub" in words:
        with pytest.raises(error):
            http.decode(Call(INFER), 500, {}, json.dumps({"error": words}).encode(), url="http://host")


def test_a_request_tells_the_server_how_long_it_is_waited_for() -> None:
    call = infer_call(MODEL_NAME, ONE_IMAGE, deadline=time.monotonic() + 3)
    endpoint = Endpoint.at("http://host", timeout_s=60)
    body = http.encode(call, endpoint).body or b""
    found = re.search(rb'"timeout": ?(\d+)', body)
    assert found
    stated = [
        int(found.group(1)),
        grpc.encode(call, endpoint).parameters["timeout"].int64_param,
    ]
    assert all(2_000_000 < microseconds <= 3_000_000 for microseconds in stated)


def test_a_model_whose_process_was_killed_is_not_well(triton_server: TritonServer, tmp_path: Path) -> None:
    options = replace(ANY_PORTS, log=tmp_path / "triton.log")
    with (
        TritonServer(triton_server.repository, options) as server,
        FaceAttributesClient(server.grpc_url, timeout_s=20) as client,
    ):
        assert client.health().well
        stubs = [int(pid) for pid in _descendants(server.pid) if b"agegendernet/1/model.py" in _command(pid)]
        assert len(stubs) == 1
        os.kill(stubs[0], signal.SIGKILL)
        with FaceAttributesClient(server.http_url, timeout_s=20) as other:
            for health in (client.health(), other.health()):
                assert (health.live, health.ready, health.well) == (True, True, False)
                assert "agegendernet" in health.faults[0]
        with pytest.raises(ServerUnavailable, match="not healthy"):
            client.infer(ONE_IMAGE)


def _descendants(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [*children, *(below for child in children for below in _descendants(child))]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_retries_end_when_their_time_is_over(unused_port: int) -> None:
    for scheme in ("grpc", "http"):
        started = time.monotonic()
        with (
            FaceAttributesClient(f"{scheme}://127.0.0.1:{unused_port}", retry_for_s=0.5) as client,
            pytest.raises(ServerUnavailable),
        ):
            client.infer(ONE_IMAGE)
        assert time.monotonic() - started < 3


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def fail(circuit: Circuit, error: BaseException) -> None:
    with circuit.guard("grpc://host"):
        raise error


def fail_slowly(circuit: Circuit) -> None:
    """The trial lasts while another call is refused."""
    with circuit.guard("grpc://host"):
        with pytest.raises(CircuitOpen):
            fail(circuit, ServerUnavailable("not tried"))
        raise DeadlineExceeded("late")


def test_the_circuit_opens_after_failures_in_a_row_and_closes_with_a_trial_that_succeeds() -> None:
    clock = Clock()
    circuit = Circuit(failures_to_open=2, reset_s=5, clock=clock)
    for _ in range(2):
        with pytest.raises(ServerUnavailable, match="gone"):
            fail(circuit, ServerUnavailable("gone"))
    with pytest.raises(CircuitOpen, match=r"2 times in a row; next trial in 5\.0 s"), circuit.guard("grpc://host"):
        pytest.fail("entered")
    clock.now_s = 5
    with circuit.guard("grpc://host"):
        pass
    with circuit.guard("grpc://host"):
        pass


def test_only_one_call_is_the_trial_and_its_failure_opens_the_circuit_again() -> None:
    clock = Clock()
    circuit = Circuit(failures_to_open=1, reset_s=5, clock=clock)
    with pytest.raises(ServerUnavailable):
        fail(circuit, ServerUnavailable("gone"))
    clock.now_s = 6
    with pytest.raises(DeadlineExceeded):
        fail_slowly(circuit)
    with pytest.raises(CircuitOpen):
        fail(circuit, ServerUnavailable("not tried"))


@pytest.mark.parametrize("answer", [InvalidInput("no"), None])
def test_an_answer_of_any_kind_starts_the_count_anew(answer: Exception | None) -> None:
    circuit = Circuit(failures_to_open=2)
    for error in (ServerUnavailable("gone"), answer, ServerUnavailable("gone")):
        try:
            with circuit.guard("grpc://host"):
                if error:
                    raise error
        except (ServerUnavailable, InvalidInput):
            pass
    with circuit.guard("grpc://host"):
        pass


def test_a_cancelled_trial_does_not_close_the_circuit() -> None:
    clock = Clock()
    circuit = Circuit(failures_to_open=1, reset_s=5, clock=clock)
    with pytest.raises(ServerUnavailable):
        fail(circuit, ServerUnavailable("gone"))
    clock.now_s = 6
    with pytest.raises(asyncio.CancelledError):
        fail(circuit, asyncio.CancelledError())
    with pytest.raises(CircuitOpen):
        fail(circuit, ServerUnavailable("not tried"))


def test_a_client_fails_at_once_when_its_server_stays_away(unused_port: int) -> None:
    circuit = Circuit(failures_to_open=2, reset_s=60)
    with FaceAttributesClient(f"grpc://127.0.0.1:{unused_port}", retry_for_s=0, circuit=circuit) as client:
        for _ in range(2):
            with pytest.raises(ServerUnavailable, match="refused"):
                client.infer(ONE_IMAGE)
        with pytest.raises(CircuitOpen):
            client.infer(ONE_IMAGE)


@contextmanager
def halted(server: TritonServer) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def infer_sync(url: str) -> Predictions:
    with FaceAttributesClient(url, timeout_s=0.5) as client:
        return client.infer(ONE_IMAGE)


def infer_async(url: str) -> Predictions:
    async def main() -> Predictions:
        async with AsyncFaceAttributesClient(url, timeout_s=0.5) as client:
            return await client.infer(ONE_IMAGE)

    return asyncio.run(main())


@pytest.mark.parametrize("infer", [infer_sync, infer_async])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_server_that_hangs_costs_no_more_than_the_deadline(
    mortal_server: TritonServer, protocol: str, infer: Callable[[str], Predictions]
) -> None:
    url = getattr(mortal_server, f"{protocol}_url")
    started = time.monotonic()
    with halted(mortal_server), pytest.raises(DeadlineExceeded):
        infer(url)
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(("protocol", "shared_memory"), [("grpc", True), ("http", False)])
def test_an_evaluation_outlives_its_server_and_loses_no_face(
    mortal_server: TritonServer, pictures: Images, tmp_path: Path, protocol: str, shared_memory: bool
) -> None:
    samples = load_samples(make_dataset(tmp_path, np.concatenate([pictures] * 6)))
    url = getattr(mortal_server, f"{protocol}_url")
    with (
        FaceAttributesClient(url, timeout_s=60, retry_for_s=60, shared_memory=shared_memory) as client,
        ThreadPoolExecutor(1) as background,
    ):
        unbroken = evaluate(client.infer_stream, samples, batch_size=4).report
        broken = background.submit(evaluate, partial(client.infer_stream, in_flight=4), samples, batch_size=4)
        wait_until_busy(client)
        mortal_server.kill()
        assert not broken.done()
        time.sleep(0.5)
        mortal_server.start()
        report = broken.result(timeout=120).report
    assert report.overall.samples == len(samples)
    found, expected = report.to_frame(), unbroken.to_frame()
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_restart_between_two_calls_goes_unnoticed(
    mortal_server: TritonServer, pictures: Images, shared_memory: bool
) -> None:
    options: dict[str, Any] = {"timeout_s": 60, "shared_memory": shared_memory}
    with (
        FaceAttributesClient(mortal_server.grpc_url, **options) as grpc,
        FaceAttributesClient(mortal_server.http_url, **options) as http,
    ):
        before = [client.infer(pictures[:2]).age for client in (grpc, http)]
        mortal_server.kill()
        mortal_server.start()
        after = [client.infer(pictures[:2]).age for client in (grpc, http)]
    np.testing.assert_allclose(after, before, atol=1e-4)


def wait_until_busy(client: FaceAttributesClient, *, images: int = 60) -> None:
    before = client.statistics()
    while sum(m.images for m in client.statistics()) - sum(m.images for m in before) < images:
        time.sleep(0.05)


def test_nothing_of_the_libraries_below_escapes_while_a_server_dies(
    mortal_server: TritonServer, pictures: Images
) -> None:
    """Requests of every transport are in flight while it is killed; each ends with an answer or an error of ours."""

    async def asynchronous(url: str) -> Any:
        async with AsyncFaceAttributesClient(url, timeout_s=60, retry_for_s=0) as client:
            return [len(p) async for p in client.infer_stream([pictures[:8]] * 50)]

    def synchronous(url: str) -> Any:
        with FaceAttributesClient(url, timeout_s=60, retry_for_s=0) as client:
            return [len(p) for p in client.infer_stream([pictures[:8]] * 50)]

    urls = (mortal_server.grpc_url, mortal_server.http_url)
    with ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(synchronous, url) for url in urls]
        outcomes += [pool.submit(asyncio.run, asynchronous(url)) for url in urls]
        time.sleep(1)
        mortal_server.kill()
        errors = [outcome.exception(timeout=60) for outcome in outcomes]
    mortal_server.start()
    assert [type(error) for error in errors] == [ServerUnavailable] * 4
