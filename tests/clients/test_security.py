from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import (
    AccessDenied,
    AsyncFaceAttributesClient,
    FaceAttributesClient,
    FaceAttributesError,
    InvalidInput,
    ServerUnavailable,
    Tls,
)
from contract.spec import Images
from serving.server import ServerOptions, TritonServer
from tests.clients.tls import tls_in_front_of

SECRET = "s3cr3t-t0ken"


def test_tls_with_a_client_certificate(
    url: str, certificates: Path, pictures: Images, triton_server: TritonServer
) -> None:
    options: dict[str, Any] = {"headers": triton_server.headers, "timeout_s": 60}
    tls = Tls(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
    scheme = url.partition("://")[0] + "s"

    async def infer_async(address: str) -> int:
        async with AsyncFaceAttributesClient(address, tls=tls, **options) as client:
            return len(await client.infer(pictures[:2]))

    with tls_in_front_of(url, certificates) as authority:
        with FaceAttributesClient(f"{scheme}://{authority}", tls=tls, **options) as client:
            assert len(client.infer(pictures[:2])) == 2
        assert asyncio.run(infer_async(f"{scheme}://{authority}")) == 2


@pytest.mark.parametrize("known", ["authority only", "nothing"])
def test_tls_without_the_right_certificates_is_an_error_of_ours(
    url: str, certificates: Path, pictures: Images, known: str
) -> None:
    tls = Tls(certificates / "ca.pem") if known == "authority only" else None
    scheme = url.partition("://")[0] + "s"
    with (
        tls_in_front_of(url, certificates) as authority,
        FaceAttributesClient(f"{scheme}://{authority}", tls=tls, retry_for_s=0) as client,
        pytest.raises(ServerUnavailable),
    ):
        client.infer(pictures[:1])


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_missing_certificate_file_is_named(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"absent\.pem"):
        FaceAttributesClient(f"{scheme}://127.0.0.1", tls=Tls(tmp_path / "absent.pem"))


@pytest.mark.parametrize(
    ("url", "tls", "reason"),
    [
        ("grpc://127.0.0.1", Tls(ca_file=Path("ca.pem")), "not encrypted"),
        ("http://127.0.0.1", Tls(ca_file=Path("ca.pem")), "not encrypted"),
        ("grpcs://127.0.0.1", Tls(certificate_file=Path("client.pem")), "go together"),
        ("https://127.0.0.1", Tls(key_file=Path("client.key")), "go together"),
    ],
)
def test_certificates_that_would_be_ignored_are_refused(url: str, tls: Tls, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        FaceAttributesClient(url, tls=tls)


@pytest.fixture(scope="module")
def restricted_server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Statistics and shared memory only for who knows the secret."""
    restricted = f"statistics,shared-memory:authorization={SECRET}"
    options = ServerOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        open=True,
        log=tmp_path_factory.mktemp("restricted") / "triton.log",
        arguments=(f"--http-restricted-api={restricted}", f"--grpc-restricted-protocol={restricted}"),
    )
    with TritonServer(triton_server.repository, options) as server:
        yield server


HEADERS = {"grpc": "triton-grpc-protocol-authorization", "http": "Authorization"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_restricted_endpoint_opens_with_the_header(restricted_server: TritonServer, protocol: str) -> None:
    url = getattr(restricted_server, f"{protocol}_url")
    with FaceAttributesClient(url, headers={HEADERS[protocol]: SECRET}, timeout_s=60) as client:
        assert client.statistics()
        assert client.health().models
    for headers in (None, {HEADERS[protocol]: "wrong"}):
        with FaceAttributesClient(url, headers=headers, timeout_s=60) as client:
            with pytest.raises(AccessDenied):
                client.statistics()
            health = client.health()  # which needs none of it
            assert (health.well, health.models) == (True, ())


def test_no_secret_appears_in_repr_errors_or_logs(
    url: str, unused_port: int, pictures: Images, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"authorization": SECRET}
    said = []
    with FaceAttributesClient(url, headers=headers) as client:
        client.infer(pictures[:1])
        said += [repr(client), repr(vars(client))]
        with pytest.raises(FaceAttributesError) as caught:
            client.predict(b"junk")
        said += [repr(caught.value), str(caught.getrepr(showlocals=False))]
    scheme = url.partition("://")[0]
    with FaceAttributesClient(f"{scheme}://127.0.0.1:{unused_port}", headers=headers, retry_for_s=0.2) as client:
        with pytest.raises(ServerUnavailable) as gone:
            client.infer(pictures[:1])
        said += [repr(gone.value), repr(gone.value.__cause__), repr(gone.value.__context__)]
    assert "trying again" in caplog.text
    assert SECRET not in caplog.text + "".join(said)


@pytest.mark.parametrize("headers", [{"bad name": SECRET}, {"name": f"{SECRET}\r\nevil: yes"}, {"name": f"{SECRET}é"}])
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        FaceAttributesClient("http://127.0.0.1", headers=headers)
    assert SECRET not in str(caught.value)


def test_credentials_in_the_address_are_refused_without_repeating_them() -> None:
    with pytest.raises(InvalidInput, match="headers") as caught:
        FaceAttributesClient(f"http://user:{SECRET}@127.0.0.1")
    assert SECRET not in str(caught.value)


def test_a_redirect_does_not_carry_the_headers_elsewhere(pictures: Images) -> None:
    """A server that redirects gets an error, and whom it points to gets nothing."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, socket.create_server(("127.0.0.1", 0)) as listener:
        location = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
        reply = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(reply.encode())

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            FaceAttributesClient(address, headers={"authorization": SECRET}, retry_for_s=0) as client,
            pytest.raises(FaceAttributesError, match="302"),
        ):
            client.infer(pictures[:1])
        thread.join()
        elsewhere.settimeout(0.2)
        with pytest.raises(TimeoutError):
            elsewhere.accept()
