from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from clients import AsyncFaceAttributesClient, InvalidReply, WrongEventLoop
from clients.calls import INFER, Call
from clients.wire import grpc, http
from contract.spec import Images
from tests.clients.material import make_pictures
from tests.clients.wire.forking import CHILDREN


@pytest.mark.parametrize("memory", ["plain", "shared_memory"])
@pytest.mark.parametrize("kind", ["idle", "busy", "async"])
def test_a_forked_child_and_its_parent_get_their_own_answers(url: str, memory: str, kind: str) -> None:
    """In a fresh process, as a fork of pytest's would carry all its threads' locks."""
    command = [sys.executable, "-m", "tests.clients.wire.forking", url, memory, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    *children, parent = done.stdout.splitlines()
    assert (len(children), parent) == (CHILDREN, "parent 0"), done.stdout + done.stderr
    if kind == "async" and url.startswith("grpc"):  # where the library below would abort the child
        assert all("UnusableAfterFork" in child for child in children)
    else:
        assert children == ["child 0 "] * CHILDREN, done.stdout + done.stderr


def test_two_event_loops_do_not_share_a_client(url: str) -> None:
    client = AsyncFaceAttributesClient(url, timeout_s=60)
    images: Images = make_pictures(1)
    with asyncio.Runner() as first:
        first.run(client.infer(images))
        with asyncio.Runner() as second, pytest.raises(WrongEventLoop, match="one in each loop"):
            second.run(client.infer(images))
        first.run(client.close())


def test_the_answer_to_another_request_is_refused() -> None:
    ours = Call(INFER, id="us-7")
    body = b'{"id": "us-6", "model_name": "m", "model_version": "1", "outputs": []}'
    with pytest.raises(InvalidReply, match="the id of another request"):
        http.decode(ours, 200, {}, body, url="http://host")
    with pytest.raises(InvalidReply, match="the id of another request"):
        grpc.decode(ours, grpc.service_pb2.ModelInferResponse(id="us-6"), url="grpc://host")
