"""locust itself, run as a user runs it, against the real server; each run sends load for a few seconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contract.spec import IMAGE, OUTPUTS, TensorSpec
from serving.installation import DEFAULT_VENV
from serving.server import ANY_PORTS, TritonServer
from tests.clients.tls import make_certificates, tls_in_front_of

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"]
KINDS = {"gRPC tensor", "gRPC encoded", "HTTP tensor", "HTTP encoded"}


def addresses(server: TritonServer) -> dict[str, str]:
    return {**os.environ, "GRPC_URL": server.grpc_url, "HTTP_URL": server.http_url}


@contextmanager
def started(out: Path, environment: dict[str, str], *arguments: object) -> Iterator[subprocess.Popen[str]]:
    options = ["--only-summary", "--warm-up-s", 0.5, "--spawn-rate", 100, "--out", out, *arguments]
    process = subprocess.Popen(
        [*COMMAND, *map(str, options)],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def run(out: Path, environment: dict[str, str], *arguments: object) -> tuple[int, str]:
    with started(out, environment, "--headless", *arguments) as process:
        output, _ = process.communicate(timeout=90)
        return process.returncode, output


def two_processes() -> tuple[object, ...]:
    """Options for two workers, whose master listens on a free port of this machine alone."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    return ("--processes", 2, "--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)


def table_of(out: Path, name: str = "summary") -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv", comment="#", keep_default_na=False)


def test_a_closed_loop_asks_in_all_four_ways_without_an_error(triton_server: TritonServer, tmp_path: Path) -> None:
    status, output = run(tmp_path, addresses(triton_server), "--users", 4, "--run-time", "3s")
    assert status == 0, output
    table = table_of(tmp_path).set_index("requests")
    assert set(table.index) == KINDS | {"all"}
    assert (table["count"] > 0).all()
    assert (table["errors"] == 0).all()
    stages = table_of(tmp_path, "stages").set_index("model")
    assert stages.loc["agegendernet", "images"] >= table.loc["all", "count"] - 4
    assert "p99 ms" in output
    conditions = json.loads((tmp_path / "conditions.json").read_text())["conditions"]
    assert "dynamic_batching {" in conditions["batch settings"]
    assert conditions["load"].startswith("closed loop, 4 users (GrpcEncoded, GrpcTensor, HttpEncoded, HttpTensor)")


def test_two_workers_share_an_open_loop_and_no_request_is_lost(triton_server: TritonServer, tmp_path: Path) -> None:
    options = ("--users", 2, "--rate", 10, "--run-time", "4s", *two_processes(), "GrpcTensor")
    status, output = run(tmp_path, addresses(triton_server), *options)
    assert status == 0, output
    [row] = table_of(tmp_path).to_dict("records")
    measured = json.loads((tmp_path / "conditions.json").read_text())
    seconds = measured["window"]["stop_s"] - measured["window"]["start_s"]
    assert row["errors"] == 0
    assert row["count"] == pytest.approx(20 * seconds, abs=25)  # the users may start late within the window
    assert table_of(tmp_path, "requests")["due_s"].max() > measured["window"]["stop_s"] - 0.2  # nor are the last
    assert measured["conditions"]["load generator"] == "locust with 2 workers"
    assert "Traceback" not in output


def test_an_open_loop_counts_what_should_have_left_while_the_server_stood_still(
    triton_server: TritonServer, tmp_path: Path
) -> None:
    """A closed loop would have one slow request a user to show for it: coordinated omission."""
    options = ("--headless", "--users", 1, "--rate", 40, "--run-time", "5s", "HttpTensor")
    with started(tmp_path, addresses(triton_server), *options) as process:
        assert process.stdout
        for line in process.stdout:
            if "All users spawned" in line:
                break
        time.sleep(2)
        os.killpg(triton_server.pid, signal.SIGSTOP)
        time.sleep(0.6)  # from 1 s on the Python backend takes its own processes for dead, and may crash
        os.killpg(triton_server.pid, signal.SIGCONT)
        output = process.communicate(timeout=60)[0]
    requests = table_of(tmp_path, "requests")
    assert (requests["error"] == "").all(), output
    assert len(requests) > 140, output
    assert (requests["latency_ms"] > 300).sum() >= 9  # of the 12 due in the first half of that time
    assert requests["due_s"].sort_values().diff().max() < 0.06  # and the schedule went on


def test_a_spike_brings_more_users_in_its_middle(triton_server: TritonServer, tmp_path: Path) -> None:
    options = ("--users", 5, "--rate", 4, "--run-time", "6s", "--shape", "spike", "HttpTensor")
    status, output = run(tmp_path, addresses(triton_server), *options)
    assert status == 0, output
    due_s = table_of(tmp_path, "requests")["due_s"]
    thirds = pd.cut(due_s - due_s.min(), [-1, 2, 4, 7]).value_counts(sort=False).tolist()
    assert thirds[1] > 2 * thirds[0] > 0
    assert thirds[1] > thirds[2] > 0


RESTRICTED = "--http-restricted-api=inference,metadata,statistics,model-config:x-api-key=not-for-the-report"


@pytest.fixture(scope="module")
def guarded_url(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The https:// address of a server that wants a key in a header and a client's certificate; where those lie."""
    if not DEFAULT_VENV.exists():
        pytest.skip("the Triton server is not installed; run make setup")
    folder = tmp_path_factory.mktemp("guarded")
    make_certificates(folder)
    (folder / "headers").write_text("X-Api-Key: not-for-the-report\n")
    options = replace(ANY_PORTS, log=folder / "triton.log", open=True, arguments=(RESTRICTED,))
    with TritonServer(repository, options) as server, tls_in_front_of(server.http_url, folder) as authority:
        yield f"https://{authority}", folder


def test_a_server_that_wants_a_key_and_a_certificate_can_be_load_tested(
    guarded_url: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = guarded_url
    names = {"ca-file": "ca.pem", "certificate-file": "client.pem", "key-file": "client.key"}
    options = [part for option, name in names.items() for part in (f"--{option}", folder / name)]
    options += ["--users", 2, "--run-time", "3s", "HttpTensor"]
    environment = {**os.environ, "HTTP_URL": url}
    status, output = run(tmp_path, environment, "--headers-file", folder / "headers", *two_processes(), *options)
    assert status == 0, output
    [row] = table_of(tmp_path).to_dict("records")
    assert row["count"] > 0
    assert row["errors"] == 0
    assert "not-for-the-report" not in output + "".join(path.read_text("latin-1") for path in tmp_path.iterdir())
    status, output = run(tmp_path, environment, *options)
    assert status == 1
    assert f"error: {url}: " in output, "without the header"
    assert "Traceback" not in output


class Invalid(BaseHTTPRequestHandler):
    """Keeps the contract in all but the values: of every two answers one has NaN, one has too few emotions."""

    asked = 0

    def do_GET(self) -> None:
        replies: dict[str, Any] = {
            "/v2": {"name": "invalid", "version": "1"},
            "/v2/models/stats": {"model_stats": []},
            "/v2/models/agegendernet/config": {"name": "agegendernet", "backend": "none", "max_batch_size": 64},
            "/v2/models/agegendernet": {"inputs": [declared(IMAGE)], "outputs": [declared(t) for t in OUTPUTS]},
        }
        self._reply(replies.get(self.path, {}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Invalid.asked += 1
        value, emotions = (float("nan"), 8) if Invalid.asked % 2 else (0.5, 7)
        sizes = {t.name: emotions if t.name == "emotion" else 1 for t in OUTPUTS}
        tensors = [{"name": n, "datatype": "FP32", "shape": [1, k], "data": [value] * k} for n, k in sizes.items()]
        self._reply({"model_name": "agegendernet", "model_version": "1", "outputs": tensors})

    def _reply(self, fields: dict[str, Any]) -> None:
        body = json.dumps(fields).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def declared(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.dtype, "shape": [-1, *tensor.dims]}


def test_answers_that_are_not_finite_or_misshapen_are_failures(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Invalid) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {**os.environ, "HTTP_URL": f"http://127.0.0.1:{server.server_port}"}
        status, output = run(tmp_path, environment, "--users", 1, "--run-time", "2s", "HttpTensor")
        server.shutdown()
    assert status == 1, output
    [row] = table_of(tmp_path).to_dict("records")
    assert row["count"] == row["errors"] > 4
    assert row["images_per_s"] == 0
    assert len(set(table_of(tmp_path, "requests")["error"])) == 2
    assert "InvalidReply" in output


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--run-time", "1s"], "error: grpc://127.0.0.1:{port}: "),
        (["--run-time", "1s", "--faces", "absent.csv"], "error: absent.csv does not exist"),
    ],
)
def test_a_load_that_cannot_start_is_one_line(
    unused_port: int, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    environment = {**os.environ, "GRPC_URL": f"grpc://127.0.0.1:{unused_port}"}
    status, output = run(tmp_path, environment, *arguments, "GrpcTensor")
    assert status == 1
    assert reason.format(port=unused_port) in output
    assert "Traceback" not in output


def test_the_page_starts_and_stops_a_run_with_settings_of_its_own(
    triton_server: TritonServer, tmp_path: Path, unused_port: int
) -> None:
    page = f"http://127.0.0.1:{unused_port}"
    options = ("--web-host", "127.0.0.1", "--web-port", unused_port, "--class-picker")
    with started(tmp_path, addresses(triton_server), *options) as process:
        wait_for_page(page, process)
        form = {"user_count": 1, "spawn_rate": 10, "host": "", "user_classes": "GrpcEncoded", "objective_ms": 333}
        data = urllib.parse.urlencode(form).encode()
        assert json.load(urllib.request.urlopen(f"{page}/swarm", data, timeout=10))["success"]
        time.sleep(2)
        assert json.load(urllib.request.urlopen(f"{page}/stop", b"", timeout=60))["success"]
    [row] = table_of(tmp_path).to_dict("records")
    assert (row["requests"], row["errors"], row["objective_ms"]) == ("gRPC encoded", 0, 333)


def wait_for_page(page: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(page, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("locust's page did not come up")
