"""Pictures, files, certificates, and the servers that the clients are tested against."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contract.spec import Images
from serving.server import ServerOptions, TritonServer
from tests.clients.material import make_pictures
from tests.clients.tls import make_certificates

SUFFIXES = ("png", "jpg", "webp", "bmp")


@pytest.fixture(scope="session")
def pictures() -> Images:
    return make_pictures(70)


@pytest.fixture(scope="session")
def files(pictures: Images, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The first eight as files of all formats, larger than the canonical image and not square."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{index}.{SUFFIXES[index % len(SUFFIXES)]}" for index in range(8)]
    for path, pixels in zip(paths, pictures, strict=False):
        Image.fromarray(pixels).resize((320, 240)).save(path)
    return paths


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, triton_server: Any) -> str:
    """The shared server, over either protocol."""
    address: str = getattr(triton_server, f"{request.param}_url")
    return address


@pytest.fixture
def unused_port() -> int:
    return _unused_ports(1)[0]


@pytest.fixture(scope="session")
def mortal_server(triton_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of one's own, on ports that stay the same, for tests that kill or halt it and start it again."""
    ports = dict(zip(("http_port", "grpc_port", "metrics_port"), _unused_ports(3), strict=True))
    log = tmp_path_factory.mktemp("mortal") / "triton.log"
    with TritonServer(triton_server.repository, ServerOptions(**ports, log=log)) as server:
        yield server


def _unused_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
