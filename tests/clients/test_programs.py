"""The programs of this package, run as a user runs them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clients import FaceAttributesClient
from clients.calls import Call, Reply
from clients.wire.endpoint import Endpoint
from clients.wire.grpc import GrpcTransport
from contract.samples import load_samples
from contract.spec import EMOTIONS, Images
from evaluation.run import evaluate, predict_all
from serving.server import TritonServer
from tests.clients.material import make_dataset


def run(program: str, *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", f"clients.{program}", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)


def test_predict_prints_a_table_for_people(url: str, files: list[Path]) -> None:
    done = run("predict", *files[:2], "--crop", "centre", "--url", url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["image", "years", "gender", "emotion", "box"]
    assert [line.split()[0] for line in lines[1:]] == [str(file) for file in files[:2]]


def test_predict_reads_folders_globs_and_standard_input(triton_server: TritonServer, files: list[Path]) -> None:
    folder = files[0].parent
    arguments = (folder, folder / "*.png", "-")
    done = run(
        "predict",
        *arguments,
        "--crop",
        "centre",
        "--json",
        "--url",
        triton_server.grpc_url,
        stdin=files[3].read_bytes(),
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    pngs = [str(file) for file in files if file.suffix == ".png"]
    assert [face["image"] for face in found] == [*map(str, files), *pngs, "stdin"]
    assert found[-1]["age"] == pytest.approx(found[3]["age"], abs=1e-4)
    assert tuple(found[0]["emotions"]) == EMOTIONS


@pytest.mark.parametrize("wire", ["tensor", "encoded"])
def test_predict_names_each_image_that_failed_and_answers_the_others(
    triton_server: TritonServer, files: list[Path], tmp_path: Path, wire: str
) -> None:
    text = tmp_path / "[notes].txt"
    text.write_text("not a picture")
    images = (files[0], text, "absent.jpg", files[1])
    done = run("predict", *images, "--crop", "centre", "--csv", "--wire", wire, "--url", triton_server.http_url)
    assert done.returncode == 1
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["image"] for row in rows] == [str(files[0]), str(files[1])]
    errors = done.stderr.decode().splitlines()
    assert [line.partition(": ")[0] for line in errors[:2]] == [str(text), "absent.jpg"]
    assert errors[2] == "2 of 4 images could not be read"


def test_predict_draws_the_result_on_a_copy_of_each_picture(
    triton_server: TritonServer, files: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "in" / files[0].name  # the same name in another folder
    other.parent.mkdir()
    Image.open(files[0]).rotate(180).save(other)
    options = ("--crop", "centre", "--annotate", tmp_path / "out", "--url", triton_server.grpc_url)
    done = run("predict", files[0], other, *options)
    assert done.returncode == 0, done.stderr
    drawn = sorted((tmp_path / "out").rglob("*.png"))
    assert len(drawn) == 2
    for path in drawn:
        with Image.open(path) as picture:
            assert picture.size == (512, 384)  # 320 x 240, enlarged until the text can be read
            band = picture.convert("L").crop((0, 345, 512, 384))
            assert band.getextrema() == (pytest.approx(0, abs=100), 255)


def test_predict_draws_what_the_model_saw(triton_server: TritonServer, tmp_path: Path) -> None:
    """Pictures that Pillow converts in another way than the model's decoder, or of which its EXIF rotation dies."""
    white = Image.new("1", (400, 400), 1)
    white.save(tmp_path / "one_bit_transparent.png", transparency=1)
    deep = Image.fromarray(np.full((400, 400), 32896, np.uint16))  # half grey, which convert() would make white
    deep.save(tmp_path / "deep.png")
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + bytes.fromhex(
        "12010300010000000100000000010900010000 00ffffffff00000000".replace(" ", "")
    )
    Image.new("RGB", (400, 400), "red").save(tmp_path / "negative.jpg", exif=exif)
    done = run("predict", tmp_path, "--annotate", tmp_path / "out", "--url", triton_server.grpc_url)
    assert done.returncode == 0, done.stderr
    corners = {path.name: Image.open(path).getpixel((5, 5)) for path in (tmp_path / "out").iterdir()}
    assert corners["one_bit_transparent.png.png"] == (255, 255, 255)
    assert corners["deep.png.png"] == (128, 128, 128)
    assert len(corners) == 3


def test_predict_reads_names_of_any_bytes_and_linked_folders(triton_server: TritonServer, tmp_path: Path) -> None:
    for folder in ("real", "given"):
        (tmp_path / folder).mkdir()
    (tmp_path / "given" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "given" / "back").symlink_to(tmp_path / "given")  # a circle
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (200, 200), "red").save(tmp_path / "real" / name, "PNG")
    (tmp_path / "real" / os.fsdecode(b"bad\xff.png")).write_bytes(b"junk")
    for form in ((), ("--csv",), ("--json",)):
        arguments = (*form, "--crop", "centre", "--annotate", tmp_path / "out", "--url", triton_server.grpc_url)
        done = run("predict", tmp_path / "given", *arguments)
        assert done.returncode == 1, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"bad\xff.png: not an image" in done.stderr
        assert (rb"caf\udce9.png" if form == ("--json",) else b"caf\xe9.png") in done.stdout
    assert (tmp_path / "out" / "link" / f"{name}.png").exists() or list((tmp_path / "out").rglob("caf*.png"))


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    done = run("predict", tmp_path / "pipe.png", "/dev/zero", "--url", "grpc://127.0.0.1:9", "--retry-for-s", 0)
    assert done.returncode == 1
    assert done.stderr.decode().count("not a file") == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--json", "--csv", "x.png"], "exclude each other"),
        ([], "no image"),
        (["x.png", "--url", "ftp://x"], "scheme"),
        (["x.png", "--headers-file", "absent.txt"], r"absent\.txt"),
        ([__file__, "--crop", "centre", "--url", "grpc://127.0.0.1:9", "--retry-for-s", "0"], "not an image"),
    ],
)
def test_predict_refuses_what_makes_no_sense_in_one_line(arguments: list[str], reason: str) -> None:
    done = run("predict", *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr.decode()
    assert re.search(reason, done.stderr.decode())


def test_nobody_at_the_address_is_one_line(unused_port: int, files: list[Path]) -> None:
    done = run("predict", files[0], "--url", f"grpc://127.0.0.1:{unused_port}", "--retry-for-s", "0")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith(f"error: grpc://127.0.0.1:{unused_port}: ")


def test_health_tells_versions_and_statistics(url: str) -> None:
    done = run("health", "--url", url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].endswith(": live, ready, answering")
    assert {line.split("/")[0] for line in lines[2:]} == {
        "agegendernet",
        "decode_image",
        "face_attributes",
        "photo_attributes",
    }


def test_health_counts_what_was_asked(url: str, pictures: Images) -> None:
    with FaceAttributesClient(url, timeout_s=60) as client:
        before = {model.name: model for model in client.statistics()}["agegendernet"]
        client.infer(pictures[:8])
        after = {model.name: model for model in client.statistics()}["agegendernet"]
    assert after.images == before.images + 8
    assert after.requests == before.requests + 1
    assert after.compute_ms > 0


def test_evaluate_prints_the_report_and_writes_it(url: str, pictures: Images, tmp_path: Path) -> None:
    manifest = make_dataset(tmp_path, pictures)
    done = run("evaluate", "--url", url, "--manifest", manifest, "--out", tmp_path / "report.csv", "--batch-size", 7)
    assert done.returncode == 0, done.stderr
    assert f"| **all** | **{len(load_samples(manifest))}** |" in done.stdout.decode()
    table = pd.read_csv(tmp_path / "report.csv")
    assert table["samples"].iloc[:-1].sum() == table["samples"].iloc[-1] == len(pictures)


def test_evaluate_writes_the_diagnosis_in_numbers_and_pictures(
    triton_server: TritonServer, pictures: Images, tmp_path: Path
) -> None:
    manifest, folder = make_dataset(tmp_path, pictures), tmp_path / "diagnosis"
    done = run("evaluate", "--url", triton_server.grpc_url, "--manifest", manifest, "--diagnosis", folder)
    assert done.returncode == 0, done.stderr
    assert "![Calibration](calibration.png)" in (folder / "diagnosis.md").read_text()
    assert (folder / "calibration.png").exists()
    with FaceAttributesClient(triton_server.grpc_url) as client:
        expected = predict_all(client.infer_stream, load_samples(manifest))
    assert pd.read_csv(folder / "answers.csv")["age"].to_numpy() == pytest.approx(expected.age, abs=1e-3)


def test_evaluate_without_a_manifest_is_one_line(tmp_path: Path) -> None:
    done = run("evaluate", "--manifest", tmp_path / "absent.csv")
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"error: {tmp_path / 'absent.csv'} does not exist")


class Counting(GrpcTransport):
    """Notes how many requests were at the server, and for how long."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.lock = threading.Lock()
        self.at_server = 0
        self.since = time.monotonic()
        self.seconds: Counter[int] = Counter()

    def send(self, call: Call) -> Reply:
        self._step(+1)
        try:
            return super().send(call)
        finally:
            self._step(-1)

    def _step(self, change: int) -> None:
        with self.lock:
            now = time.monotonic()
            self.seconds[self.at_server] += now - self.since
            self.at_server, self.since = self.at_server + change, now


def test_an_evaluation_keeps_the_server_busy(triton_server: TritonServer, pictures: Images, tmp_path: Path) -> None:
    samples = load_samples(make_dataset(tmp_path, np.concatenate([pictures] * 30)))
    transport = Counting(Endpoint.at(triton_server.grpc_url, timeout_s=60))
    with FaceAttributesClient(triton_server.grpc_url, timeout_s=60, transport=transport) as client:
        client.infer(pictures[:1])
        transport.seconds.clear()
        evaluate(client.infer_stream, samples, batch_size=4)
    waited_for_us = sum(seconds for count, seconds in transport.seconds.items() if count < 4)
    assert waited_for_us < 0.05 * sum(transport.seconds.values())
