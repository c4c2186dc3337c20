"""A server whose processes die or stand still is noticed and started again."""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clients import FaceAttributesClient, FaceAttributesError
from contract.spec import DECODE_MODEL_NAME, MODEL_NAME, Images
from serving import run
from serving.errors import StartError
from serving.installation import DEFAULT_VENV
from serving.run import keep_running
from serving.server import ANY_PORTS, TritonServer

pytestmark = pytest.mark.skipif(not DEFAULT_VENV.exists(), reason="the Triton server is not installed")

AGAIN_WITHIN_S = 5.0


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, replace(ANY_PORTS, log=tmp_path / "triton.log")) as running:
        yield running


def stub_of(server: TritonServer, model: str) -> int:
    """The process id of a Python model."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            group = int(command.with_name("stat").read_text().rpartition(")")[2].split()[2])
            words = command.read_bytes().split(b"\0")
            if group == server.pid and b"stub" in words[0] and any(f"/{model}/".encode() in w for w in words):
                return int(command.parent.name)
    raise AssertionError(f"{model} has no process")


@contextmanager
def load(server: TritonServer, encoded: bytes) -> Iterator[list[float]]:
    """Callers without a pause, of both Python models; yields when each answer came."""
    answered_at: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with (
                FaceAttributesClient(server.grpc_url, wire="encoded", timeout_s=3, retry_for_s=0) as client,
                suppress(FaceAttributesError),
            ):
                while not stop.is_set():
                    client.predict(encoded)
                    answered_at.append(time.monotonic())
            time.sleep(0.05)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        yield answered_at
    finally:
        stop.set()
        for caller in callers:
            caller.join()


@pytest.mark.slow
@pytest.mark.parametrize("model", [MODEL_NAME, DECODE_MODEL_NAME])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_it_answers_again_soon_after_a_models_process_dies_or_stands_still(
    server: TritonServer, noise: Images, model: str, number: int
) -> None:
    """Five seconds where a start takes one; a start takes longer on a machine that is busy with other things."""
    buffer = io.BytesIO()
    Image.fromarray(noise[0]).save(buffer, "PNG")
    began = time.monotonic()
    server.kill()
    server.start()
    start_s = time.monotonic() - began

    def hit_it() -> None:
        wait_for_answers(answered_at, 4)
        os.kill(stub_of(server, model), number)
        hit_at.append(time.monotonic())
        wait_for_answers(answered_at, len(answered_at) + 20, within_s=60)
        os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C ends make serve

    hit_at: list[float] = []
    with load(server, buffer.getvalue()) as answered_at:
        hitter = threading.Thread(target=hit_it)
        hitter.start()
        with pytest.raises(KeyboardInterrupt):
            keep_running(server)
        hitter.join()
    times = np.array([at for at in answered_at if at > hit_at[0] - 1])
    outage_s = float(np.diff(times).max())
    print(f"{model}, signal {number}: no answer for {outage_s:.1f} s; a start takes {start_s:.1f} s")
    assert outage_s < max(AGAIN_WITHIN_S, 2.0 + 2.0 * start_s)


def wait_for_answers(answered_at: list[float], count: int, *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while len(answered_at) < count and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
def test_it_gives_up_on_a_server_that_does_not_start_and_says_why(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "PAUSES_S", (0.0, 0.1))
    copy = tmp_path / "model_repository"
    shutil.copytree(repository, copy)
    with TritonServer(copy, replace(ANY_PORTS, log=tmp_path / "triton.log")) as server:
        (copy / DECODE_MODEL_NAME / "1" / "model.py").write_text("raise RuntimeError('broken on purpose')")
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(StartError, match=r"the server has ended; given up after 2 starts .*broken on purpose"):
            keep_running(server)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "the server has ended; starting it again"
    assert [line for line in said if "broken on purpose" in line]
