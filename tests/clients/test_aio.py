from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from clients import (
    AsyncFaceAttributesClient,
    ClientClosed,
    FaceAttributes,
    FaceAttributesClient,
    InvalidImage,
    InvalidInput,
    ServerUnavailable,
)
from contract.spec import Images, Predictions

T = TypeVar("T")


def run(url: str, work: Callable[[AsyncFaceAttributesClient], Awaitable[T]], **options: Any) -> T:
    async def main() -> T:
        async with AsyncFaceAttributesClient(url, timeout_s=60, **options) as client:
            return await work(client)

    return asyncio.run(main())


@pytest.mark.parametrize("wire", ["tensor", "encoded"])
def test_both_clients_give_the_same_answers(url: str, files: list[Path], wire: Any) -> None:
    with FaceAttributesClient(url, wire=wire, timeout_s=60) as client:
        expected = client.predict_batch(files)
    found = run(url, lambda client: client.predict_batch(files), wire=wire)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, FaceAttributes)
        assert isinstance(other, FaceAttributes)
        assert one.age == pytest.approx(other.age, abs=1e-4)


def test_a_bad_image_is_reported_in_its_place(url: str, files: list[Path]) -> None:
    results = run(url, lambda client: client.predict_batch([files[0], b"junk", files[1]]))
    assert [type(result) for result in results] == [FaceAttributes, InvalidImage, FaceAttributes]


def test_predict_raises_for_a_bad_image(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidImage, match=r"absent\.png: No such file"):
        run(url, lambda client: client.predict(tmp_path / "absent.png"))


def test_a_stream_answers_in_order(url: str, pictures: Images) -> None:
    async def work(client: AsyncFaceAttributesClient) -> tuple[Predictions, Predictions]:
        batches = (pictures[i : i + 1] for i in range(20))
        streamed = [predictions async for predictions in client.infer_stream(batches, in_flight=4)]
        return Predictions.concatenate(streamed), await client.infer(pictures[:20])

    streamed, at_once = run(url, work)
    np.testing.assert_allclose(streamed.age, at_once.age, atol=1e-4)


def test_a_stream_reads_an_asynchronous_source_no_further_ahead_than_twice_what_is_in_flight(
    url: str, files: list[Path]
) -> None:
    taken = 0

    async def endless() -> AsyncIterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield files[taken % len(files)]

    async def work(client: AsyncFaceAttributesClient) -> list[FaceAttributes | InvalidImage]:
        stream = client.predict_stream(endless(), in_flight=2)
        results = [await anext(stream) for _ in range(5)]
        await stream.aclose()
        return results

    assert len(run(url, work)) == 5
    assert taken <= 5 + 2 * 2


def test_a_stream_of_nothing_in_flight_is_refused(url: str, files: list[Path]) -> None:
    async def work(client: AsyncFaceAttributesClient) -> list[FaceAttributes | InvalidImage]:
        return [face async for face in client.predict_stream(files, in_flight=0)]

    with pytest.raises(InvalidInput, match="in_flight"):
        run(url, work)


def test_cancelling_a_call_leaves_the_client_usable(url: str, pictures: Images) -> None:
    async def work(client: AsyncFaceAttributesClient) -> Predictions:
        await client.infer(pictures[:1])
        task = asyncio.create_task(client.infer(pictures))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await client.infer(pictures[:1])

    assert len(run(url, work, shared_memory=True)) == 1


def test_nobody_at_the_address_is_an_error_of_ours(unused_port: int, pictures: Images) -> None:
    for scheme in ("grpc", "http"):
        with pytest.raises(ServerUnavailable, match=str(unused_port)):
            run(f"{scheme}://127.0.0.1:{unused_port}", lambda client: client.infer(pictures[:1]), retry_for_s=0)


def test_a_closed_client_says_so(url: str, pictures: Images) -> None:
    async def work(client: AsyncFaceAttributesClient) -> None:
        await client.close()
        await client.infer(pictures[:1])

    with pytest.raises(ClientClosed):
        run(url, work)


def test_health_is_the_same_for_both(url: str) -> None:
    with FaceAttributesClient(url) as client:
        expected = client.health()
    found = run(url, lambda client: client.health())
    assert (found.live, found.ready, found.version) == (expected.live, expected.ready, expected.version)
    assert {model.name for model in found.models} == {model.name for model in expected.models}
