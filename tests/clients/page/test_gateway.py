"""The gateway: the page's own files, faces and health; nobody else's requests."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from clients import AsyncFaceAttributesClient
from clients.page.gateway import FILES, application
from contract.images import MAX_ENCODED_BYTES
from serving.server import TritonServer
from tests.photos import encoded, grid, photo_with_faces

Ask = Callable[[aiohttp.ClientSession, str], Awaitable[Any]]


def through_gateway(url: str, ask: Ask, **options: Any) -> Any:
    """What `ask` returns, given a session and the address of a gateway to the server at `url`."""

    async def run() -> Any:
        async with (
            AsyncFaceAttributesClient(url, **options) as client,
            TestServer(application(client)) as gateway,
            aiohttp.ClientSession() as session,
        ):
            return await ask(session, str(gateway.make_url("")).rstrip("/"))

    return asyncio.run(run())


async def post(session: aiohttp.ClientSession, origin: str, body: bytes, **headers: str) -> tuple[int, Any]:
    headers = {"Origin": origin, **headers}
    async with session.post(f"{origin}/faces", data=io.BytesIO(body), headers=headers) as response:
        return response.status, await response.json()


async def get(session: aiohttp.ClientSession, url: str, **headers: str) -> web.Response | Any:
    async with session.get(url, headers=headers) as response:
        await response.read()
        return response


def test_a_photo_is_answered_with_its_faces(url: str) -> None:
    photo = encoded(photo_with_faces((640, 480), grid((640, 480), 2, 200)), "JPEG", quality=90)
    status, answer = through_gateway(url, lambda session, origin: post(session, origin, photo), timeout_s=60)
    assert status == 200
    assert answer["in_photo"] == len(answer["faces"]) == 2
    assert set(answer["faces"][0]) >= {"box", "score", "age", "gender", "gender_probability", "emotion", "emotions"}


@pytest.mark.parametrize(("body", "reason"), [(b"", "0 bytes"), (b"no photo", "not an image")])
def test_a_bad_photo_is_told_as_the_servers_words_without_its_address(
    triton_server: TritonServer, body: bytes, reason: str
) -> None:
    url = triton_server.grpc_url
    status, answer = through_gateway(url, lambda session, origin: post(session, origin, body), timeout_s=60)
    assert status == 422
    assert reason in answer["error"]
    assert "127.0.0.1" not in answer["error"]


def test_a_server_that_is_gone_is_a_sentence_for_people(unused_port: int) -> None:
    url = f"grpc://127.0.0.1:{unused_port}"
    photo = encoded(photo_with_faces((64, 64), []))
    status, answer = through_gateway(url, lambda session, origin: post(session, origin, photo), retry_for_s=0)
    assert status == 503
    assert answer == {"error": "the server is busy or not running; try again in a moment"}
    health = through_gateway(url, lambda session, origin: get(session, f"{origin}/health"), retry_for_s=0)
    assert health.status == 503


def test_only_the_page_itself_may_ask(unused_port: int) -> None:
    async def ask(session: aiohttp.ClientSession, origin: str) -> list[int]:
        strange = [{"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Host": "elsewhere.example"}]
        statuses = [(await post(session, origin, b"x", **headers))[0] for headers in strange]
        async with session.post(f"{origin}/faces", data=b"x") as response:
            statuses.append(response.status)
        statuses.append((await get(session, f"{origin}/", Host="elsewhere.example")).status)
        return statuses

    assert through_gateway(f"grpc://127.0.0.1:{unused_port}", ask) == [403] * 5


def test_nothing_but_the_page_faces_and_health_is_passed_on(triton_server: TritonServer) -> None:
    paths = (
        "v2",
        "v2/health/live",
        "v2/repository/index",
        "v2/models/agegendernet/infer",
        "metrics",
        "page.py",
        "../x",
    )

    async def ask(session: aiohttp.ClientSession, origin: str) -> list[int]:
        return [(await get(session, f"{origin}/{path}")).status for path in paths]

    assert through_gateway(triton_server.grpc_url, ask) == [404] * len(paths)
    assert through_gateway(triton_server.grpc_url, lambda s, origin: get(s, f"{origin}/faces")).status == 405


def test_a_body_above_the_limit_is_refused(unused_port: int) -> None:
    body = bytes(MAX_ENCODED_BYTES + 1)
    status, _ = through_gateway(f"grpc://127.0.0.1:{unused_port}", lambda s, origin: post(s, origin, body))
    assert status == 413


@pytest.mark.parametrize("path", FILES)
def test_every_file_forbids_the_browser_what_is_not_the_pages_own(unused_port: int, path: str) -> None:
    response = through_gateway(f"grpc://127.0.0.1:{unused_port}", lambda s, origin: get(s, f"{origin}{path}"))
    assert response.status == 200
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in response.headers
