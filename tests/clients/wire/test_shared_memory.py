from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from clients import FaceAttributesClient, SharedMemoryWarning
from clients.wire import shared_memory
from clients.wire.shared_memory import BYTES, DIRECTORY, SLOTS, Region, region_prefix, remove_dead_regions
from contract.spec import MODEL_NAME, Images
from serving.server import TritonServer


def regions_known_to(server: TritonServer) -> set[str]:
    with InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        return set(client.get_system_shared_memory_status(headers=server.headers).regions)


def files_of(server: TritonServer) -> set[str]:
    """Regions for this server: other programs on the machine may have regions for theirs."""
    prefixes = [region_prefix(url.partition("://")[2]) for url in (server.grpc_url, server.http_url)]
    return {path.name for path in DIRECTORY.iterdir() if path.name.startswith(tuple(prefixes))}


@pytest.fixture(autouse=True)
def nothing_is_left_behind(triton_server: TritonServer) -> Iterator[None]:
    files, regions = files_of(triton_server), regions_known_to(triton_server)
    yield
    assert files_of(triton_server) == files
    assert regions_known_to(triton_server) == regions


def test_answers_are_those_of_tensors_on_the_wire(url: str, pictures: Images) -> None:
    with FaceAttributesClient(url, timeout_s=60) as plain:
        expected = plain.infer(pictures)
    with FaceAttributesClient(url, timeout_s=60, shared_memory=True) as sharing:
        np.testing.assert_allclose(sharing.infer(pictures).age, expected.age, atol=1e-4)
        streamed = list(sharing.infer_stream(np.split(pictures, 35), in_flight=20))  # more than there are slots
        np.testing.assert_allclose(np.concatenate([p.age for p in streamed]), expected.age, atol=1e-4)


def test_the_server_reads_the_region_while_the_client_is_open(triton_server: TritonServer, pictures: Images) -> None:
    before = regions_known_to(triton_server)
    with FaceAttributesClient(triton_server.grpc_url, timeout_s=60, shared_memory=True) as client:
        client.infer(pictures[:1])
        [region] = regions_known_to(triton_server) - before
        images = triton_images(triton_server)
        with (DIRECTORY / region).open("r+b") as file:
            assert pictures[:1].tobytes() in file.read(BYTES)
        client.infer(pictures[:1])
    assert triton_images(triton_server) == images + 1


def test_threads_that_start_together_make_one_region(triton_server: TritonServer, pictures: Images) -> None:
    before = files_of(triton_server)
    with (
        FaceAttributesClient(triton_server.grpc_url, timeout_s=60, shared_memory=True) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        list(pool.map(lambda _: client.infer(pictures[:1]), range(16)))
        assert len(files_of(triton_server) - before) == 1


def triton_images(server: TritonServer) -> int:
    with FaceAttributesClient(server.http_url) as client:
        return {model.name: model.images for model in client.statistics()}[MODEL_NAME]


def test_what_a_killed_process_left_is_cleaned_at_the_next_start(triton_server: TritonServer, pictures: Images) -> None:
    program = """
import sys, time, numpy as np
from clients import FaceAttributesClient
client = FaceAttributesClient(sys.argv[1], timeout_s=60, shared_memory=True)
client.infer(np.zeros((1, 128, 128, 3), np.uint8))
print("ready", flush=True)
time.sleep(600)
"""
    before = regions_known_to(triton_server)
    with subprocess.Popen(
        [sys.executable, "-c", program, triton_server.grpc_url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        [left] = regions_known_to(triton_server) - before
        with FaceAttributesClient(triton_server.grpc_url, timeout_s=60, shared_memory=True) as client:
            client.infer(pictures[:1])
            assert left in regions_known_to(triton_server), "the region of a living process was taken"
        os.kill(process.pid, signal.SIGKILL)
    assert left in regions_known_to(triton_server)
    with FaceAttributesClient(triton_server.grpc_url, timeout_s=60, shared_memory=True) as client:
        client.infer(pictures[:1])
        assert left not in regions_known_to(triton_server)
        assert left not in files_of(triton_server)


def test_a_server_that_cannot_see_the_region_is_warned_about_once_and_answers(
    url: str, pictures: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "DIRECTORY", tmp_path)  # as on another host: the server does not find the file
    with FaceAttributesClient(url, timeout_s=60, shared_memory=True) as client:
        with pytest.warns(SharedMemoryWarning, match="no shared memory with the server"):
            assert len(client.infer(pictures[:1])) == 1
        assert len(client.infer(pictures[:1])) == 1
    assert not list(tmp_path.iterdir())


def test_without_room_for_a_region_the_client_does_without(
    url: str, pictures: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "DIRECTORY", tmp_path / "absent")
    with (
        FaceAttributesClient(url, timeout_s=60, shared_memory=True) as client,
        pytest.warns(SharedMemoryWarning, match="No such file"),
    ):
        assert len(client.infer(pictures[:1])) == 1


def test_every_slot_is_lent_once_and_comes_back(pictures: Images) -> None:
    region = Region("host:1")
    try:
        with ExitStack() as stack:
            lent = [stack.enter_context(region.lend(pictures[:1])) for _ in range(SLOTS)]
            assert len({place.offset for place in lent if place}) == SLOTS
            with region.lend(pictures[:1]) as none_left:
                assert none_left is None
        with region.lend(pictures[:1]) as place:
            assert place is not None
    finally:
        region.close()


def test_only_the_regions_of_the_same_server_are_cleaned() -> None:
    region = Region("host:1")
    del region  # as an unclosed client leaves it: unlocked
    assert remove_dead_regions("host:2") == []
    assert len(remove_dead_regions("host:1")) == 1
