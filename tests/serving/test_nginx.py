"""serving/nginx/agegendernet.conf in Debian's nginx, before the real server."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from clients import AccessDenied, FaceAttributesClient, Tls
from contract.spec import MODEL_NAME, Images
from serving.launch import LOOPBACK, PROJECT, Ports
from serving.server import TritonServer
from tests.clients.tls import make_certificates

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
CONFIGURATION = PROJECT / "serving" / "nginx" / "agegendernet.conf"
INFER, READY = f"/v2/models/{MODEL_NAME}/infer", "/v2/health/ready"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx)")


@dataclass(frozen=True)
class Front:
    """A running nginx."""

    port: int
    certificates: Path
    headers: dict[str, str]  # that open the server behind it

    def connect(self) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.certificates / "ca.pem"))
        return HTTPSConnection(LOOPBACK, self.port, context=context, timeout=30)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> int:
        """Return the status."""
        connection = self.connect()
        try:
            connection.request(method, path, body, {**self.headers, **(headers or {})})
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def front(triton_server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("nginx")
    make_certificates(folder)
    port = Ports().chosen().http
    text = CONFIGURATION.read_text()
    changes = {
        "127.0.0.1:8000": triton_server.http_url.partition("://")[2],
        "127.0.0.1:8001": triton_server.grpc_url.partition("://")[2],
        "listen 8443": f"listen {LOOPBACK}:{port}",
        "faces.example.org": LOOPBACK,
        "rate=100r/s": "rate=1r/s",  # more than this a busy machine may not send at all
        "/etc/ssl/agegendernet.pem": str(folder / "server.pem"),
        "/etc/ssl/agegendernet.key": str(folder / "server.key"),
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    temporary = "".join(f"{k}_temp_path {folder / k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = folder / "nginx.conf"
    user = "user root; " if os.geteuid() == 0 else ""  # whom the folder belongs to
    main.write_text(
        f"{user}daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}{text} }}\n"
    )
    process = subprocess.Popen([str(NGINX), "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(main)])
    try:
        wait_until_it_listens(port, process)
        yield Front(port, folder, triton_server.headers)
    finally:
        process.terminate()
        process.wait(30)


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "nginx refused the configuration"
        try:
            socket.create_connection((LOOPBACK, port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("nginx does not listen")


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_our_clients_are_answered_with_the_key_and_refused_without(front: Front, noise: Images, scheme: str) -> None:
    url, tls = f"{scheme}://{LOOPBACK}:{front.port}", Tls(front.certificates / "ca.pem")
    with FaceAttributesClient(url, tls=tls, headers=front.headers, timeout_s=60) as client:
        assert len(client.infer(noise)) == len(noise)
    with FaceAttributesClient(url, tls=tls, timeout_s=60) as client, pytest.raises(AccessDenied):
        client.infer(noise[:1])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v2/repository/models/{MODEL_NAME}/load"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/models/stats"),
        ("GET", f"/v2/models/{MODEL_NAME}/config"),
        ("POST", "/inference.GRPCInferenceService/RepositoryModelLoad"),
    ],
)
def test_nothing_but_inference_and_health_is_behind_it(front: Front, method: str, path: str) -> None:
    assert front.ask(method, path) == 404


def test_health_is_open_and_has_no_other_method(front: Front) -> None:
    assert front.ask("GET", READY, dict.fromkeys(front.headers, "")) == 200
    assert front.ask("POST", READY) == 403


def test_a_compressed_body_is_refused(front: Front) -> None:
    assert front.ask("POST", INFER, {"Content-Encoding": "gzip"}, gzip.compress(b"[" * 1000)) == 415


def test_a_compressed_message_of_grpc_is_refused(front: Front) -> None:
    credentials = grpc.ssl_channel_credentials((front.certificates / "ca.pem").read_bytes())
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME, id="x" * 10_000)
    with grpc.secure_channel(f"{LOOPBACK}:{front.port}", credentials) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            GRPCInferenceServiceStub(channel).ModelInfer(
                request, timeout=30, compression=grpc.Compression.Gzip, metadata=tuple(front.headers.items())
            )
        assert "415" in caught.value.details()


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(front: Front) -> None:
    assert front.ask("POST", INFER, {"Content-Length": str(33 << 20)}) == 413


def test_another_host_name_is_refused(front: Front) -> None:
    assert front.ask("GET", READY, {"Host": "evil.example"}) == 421


def test_whoever_asks_too_often_is_refused_for_a_while(front: Front) -> None:
    connection = front.connect()
    statuses = set()
    for _ in range(1000):  # of which 200 may come at once
        connection.request("GET", READY)
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
        if 429 in statuses:
            break
    connection.close()
    assert statuses == {200, 429}
