"""A server answers those who have its key, which this user's programs find by themselves."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from clients import FaceAttributesClient
from contract.headers import local_headers, local_headers_path
from contract.spec import MODEL_NAME, Images
from serving.errors import SetupError
from serving.lock import KEY_VARIABLE, Lock
from serving.server import ANY_PORTS, TritonServer

NESTED = b'{"inputs":' + b"[" * 75_000 + b"]" * 75_000 + b"}"  # which an open server's parser dies of
REGION = "systemsharedmemory/region/x"
CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    f"models/{MODEL_NAME}/infer": ("POST", lambda client: client.infer(MODEL_NAME, [tensor()])),
    f"models/{MODEL_NAME}": ("GET", lambda client: client.get_model_metadata(MODEL_NAME)),
    f"models/{MODEL_NAME}/config": ("GET", lambda client: client.get_model_config(MODEL_NAME)),
    f"repository/models/{MODEL_NAME}/load": ("POST", lambda client: client.load_model(MODEL_NAME)),
    f"{REGION}/register": ("POST", lambda client: client.register_system_shared_memory("x", "/x", 1)),
    "models/stats": ("GET", lambda client: client.get_inference_statistics()),
    "trace/setting": ("POST", lambda client: client.get_trace_settings()),
    "logging": ("POST", lambda client: client.update_log_settings({"log_error": False})),
}


def tensor() -> tritonclient.grpc.InferInput:
    image = np.zeros((1, 128, 128, 3), np.uint8)
    return tritonclient.grpc.InferInput("image", list(image.shape), "UINT8").set_data_from_numpy(image)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("path", CALLS)
def test_without_the_key_nothing_is_read(triton_server: TritonServer, path: str) -> None:
    method, call = CALLS[path]
    body = NESTED if method == "POST" else None
    connection = HTTPConnection(triton_server.http_url.partition("://")[2], timeout=30)
    connection.request(method, f"/v2/{path}", body)
    assert connection.getresponse().status == 403
    connection.close()
    with tritonclient.grpc.InferenceServerClient(triton_server.grpc_url.partition("://")[2]) as client:
        with pytest.raises(InferenceServerException, match="protocol is restricted"):
            call(client)
        assert client.is_server_ready(), "health is open"


def test_our_clients_find_the_key(triton_server: TritonServer, noise: Images) -> None:
    for url in (triton_server.grpc_url, triton_server.http_url):
        with FaceAttributesClient(url, timeout_s=60) as client:
            assert len(client.infer(noise[:1])) == 1
            assert client.health().ready


def test_the_key_is_for_its_user_alone(triton_server: TritonServer) -> None:
    key = triton_server.headers["agegendernet-key"]
    for url in (triton_server.grpc_url, triton_server.http_url):
        path = local_headers_path(port_of(url))
        assert path.stat().st_mode & 0o777 == 0o600
        assert key in path.read_text()
    assert key not in Path(f"/proc/{triton_server.pid}/cmdline").read_text()
    assert key not in triton_server.options.log.read_text()


def test_faces_in_shared_memory_and_the_log_are_not_for_everybody(triton_server: TritonServer) -> None:
    regions = list(Path("/dev/shm").glob(f"agegendernet_{os.getpid()}_{port_of(triton_server.grpc_url)}_*"))
    assert regions
    for path in (*regions, triton_server.options.log):
        assert not path.stat().st_mode & 0o077, path


def test_a_file_that_others_may_have_written_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEGENDERNET_KEYS", str(tmp_path))
    lock = Lock()
    lock.publish(8000)
    assert local_headers("127.0.0.1:8000") == lock.headers
    assert local_headers("192.0.2.1:8000") == {}, "another machine is not given a key"
    Lock().publish(8000)
    assert local_headers("127.0.0.1:8000") != lock.headers, "a server that was started again has another"
    local_headers_path(8000).chmod(0o666)
    assert local_headers("127.0.0.1:8000") == {}


@pytest.mark.parametrize("key", ["short", "with,comma-and-more", "with=equals-and-more"])
def test_a_key_that_the_server_would_read_otherwise_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(SetupError, match="at least 16 characters") as caught:
        Lock()
    assert key not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AGEGENDERNET_KEYS", str(tmp_path / "file"))
    with pytest.raises(SetupError, match=r"cannot be written to .* name a folder of yours in AGEGENDERNET_KEYS"):
        Lock().publish(8000)


def test_an_open_server_asks_nobody_and_a_stopped_one_leaves_no_key(repository: Path, tmp_path: Path) -> None:
    with TritonServer(repository, replace(ANY_PORTS, open=True, log=tmp_path / "triton.log")) as server:
        assert server.headers == {}
        assert not local_headers_path(port_of(server.http_url)).exists()
        with urllib.request.urlopen(f"{server.http_url}/v2/models/stats", timeout=30) as answer:
            assert json.load(answer)["model_stats"]
    with TritonServer(repository, replace(ANY_PORTS, log=tmp_path / "triton.log")) as server:
        path = local_headers_path(port_of(server.http_url))
        assert path.exists()
    assert not path.exists()
    assert (tmp_path / "triton.log").read_text().count("--- started ") == 2, "the log is appended to"
