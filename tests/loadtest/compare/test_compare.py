"""Servers side by side: what is started, whose answers count, what follows from measurements. Nothing is timed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from contract.spec import EMOTIONS, Images, Predictions
from convert import export_torch, runtimes
from loadtest.compare.__main__ import check_answers
from loadtest.compare.contestants import OURS, CompareConfig, Contestant, contestants_of
from loadtest.compare.endpoints import TritonEndpoint, TritonHttpEndpoint, check_json_answer
from loadtest.compare.peer_server import DEFAULT_VENV, PEERS, PeerError, PeerServer
from loadtest.compare.report import KEY, best_peer, ratios, write_report
from loadtest.table import medians, read_table, write_table
from serving.launch import PROJECT, Ports
from serving.server import TritonServer

FASTAPI, LITSERVE, PYTORCH = "FastAPI + ONNX Runtime", "LitServe + ONNX Runtime", "FastAPI + PyTorch"
CONDITIONS = {"hardware": "2 cores", "load": "closed loop"}


def rows(server: str, precision: str, throughputs: list[float], p99_ms: float, **others: object) -> list[dict]:
    protocol = "gRPC tensor" if server == OURS else "HTTP bytes, JSON"
    row = {"server": server, "precision": precision, "protocol": protocol, "in_flight": 16, "p50_ms": 1, "errors": 0}
    return [
        {"round": n, **row, "images_per_s": value, "p99_ms": p99_ms, **others} for n, value in enumerate(throughputs, 1)
    ]


@pytest.fixture
def measurements() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *rows(OURS, "FP32", [90, 100, 500], 30.0),
            *rows(OURS, "FP32", [70, 80, 90], 30.0, protocol="HTTP tensor"),
            *rows(OURS, "FP32", [9, 9, 9], 10.0, in_flight=1),
            *rows(OURS, "INT8", [400, 400, 400], 10.0),
            *rows(FASTAPI, "FP32", [80, 80, 80], 25.0),
            *rows(LITSERVE, "FP32", [300, 70, 70], 40.0),  # more in one round, not by the median
            *rows(PYTORCH, "FP32", [50, 50, 50], 90.0),
            *rows(FASTAPI, "INT8", [200, 200, 200], 20.0),
        ]
    )


def test_the_best_peer_is_chosen_by_the_median(measurements: pd.DataFrame) -> None:
    best = best_peer(medians(measurements, KEY), "FP32")
    assert best is not None
    assert (best["server"], best["images_per_s"]) == (FASTAPI, 80)


def test_a_peer_with_errors_is_not_the_best(measurements: pd.DataFrame) -> None:
    measurements.loc[measurements["server"] == FASTAPI, "errors"] = 1
    best = best_peer(medians(measurements, KEY), "FP32")
    assert best is not None
    assert best["server"] == LITSERVE
    assert best_peer(medians(measurements, KEY), "INT8") is None


def test_ratios_are_of_medians_over_grpc_at_sixteen_in_flight(measurements: pd.DataFrame) -> None:
    found = {ratio.what: ratio for ratio in ratios(medians(measurements, KEY))}
    assert [ratio.value for ratio in found.values()] == [100 / 80, 2.0, 5.0, 8.0]
    assert [ratio.goal for ratio in found.values()] == [1.0, 1.1, 3.2, 5.0]
    fp32, int8, *others = found.values()
    assert not fp32.reached, "more throughput, but a p99 of 30 ms against 25"
    assert int8.reached
    assert all(ratio.reached for ratio in others)


def test_no_goal_is_reached_with_errors_of_ours(measurements: pd.DataFrame) -> None:
    measurements.loc[measurements["server"] == OURS, "errors"] = 1
    assert not any(ratio.reached for ratio in ratios(medians(measurements, KEY)))


def test_without_int8_only_the_ratio_of_fp32_is_left(measurements: pd.DataFrame) -> None:
    fp32 = measurements[measurements["precision"] == "FP32"]
    assert [ratio.what for ratio in ratios(medians(fp32, KEY))] == ["FP32 served / best peer at FP32"]


def test_the_report_states_conditions_ratios_and_every_server_and_can_be_made_again(
    measurements: pd.DataFrame, tmp_path: Path
) -> None:
    write_table(measurements, tmp_path / "measurements.csv", CONDITIONS)
    read, conditions = read_table(tmp_path / "measurements.csv")
    assert conditions == CONDITIONS
    text = write_report(read, tmp_path, conditions)
    assert text == (tmp_path / "report.md").read_text()
    assert (
        "| INT8 served / best peer at INT8 | FastAPI + ONNX Runtime | **2.00** | 1.1, p99 no worse | 0.50 | yes |"
        in text
    )
    assert "| agegendernet | FP32 | gRPC tensor | 100.0 | 90.0 - 500.0 |" in text
    assert all(server in text for server in (PYTORCH, LITSERVE, *CONDITIONS.values()))
    with Image.open(tmp_path / "report.png") as picture:
        assert "closed loop" in picture.info["Description"]


def test_ours_comes_first_and_each_server_gets_the_weights_that_it_loads(tmp_path: Path) -> None:
    names = ("fp32.onnx", "model.pt2", "int8.onnx", "ort.onnx")
    fp32, pytorch, int8, ort = (tmp_path / name for name in names)
    found = contestants_of(CompareConfig(fp32=fp32, pytorch=pytorch, int8=int8), ort)
    assert found[0] == Contestant(OURS, "FP32", fp32)
    given = {(c.server, c.precision): c.model for c in found}
    assert given[PYTORCH, "FP32"] == pytorch
    assert (PYTORCH, "INT8") not in given
    assert given[OURS, "INT8"] == int8
    assert {given[name, "INT8"] for name in PEERS if name != PYTORCH} == {ort}
    few = contestants_of(CompareConfig(fp32=fp32, pytorch=pytorch, only=(FASTAPI,)), None)
    assert [c.server for c in few] == [OURS, FASTAPI]


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_told_its_weights_ports_and_settings(name: str, tmp_path: Path) -> None:
    for program in ("python", "bentoml"):
        (tmp_path / "bin" / program).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / program).touch()
    server = PeerServer(PEERS[name], Path("/m.onnx"), tmp_path / "log", tmp_path, settings={"workers": "3"})
    ports = Ports(http=1234, grpc=1235)
    environment = server.environment(ports)
    assert environment["PEER_MODEL"] == "/m.onnx"
    assert (environment["PEER_PORT"], environment["PEER_GRPC_PORT"], environment["PEER_WORKERS"]) == (
        "1234",
        "1235",
        "3",
    )
    assert any(PEERS[name].module in argument for argument in server.arguments(ports))
    assert PEERS[name].path.exists()


def test_a_missing_environment_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"install the peers with make \.venv-peers/installed"):
        PeerServer(PEERS[FASTAPI], Path("m.onnx"), tmp_path / "log", tmp_path / "none").__enter__()


def fake_venv(folder: Path, program: str) -> Path:
    """An environment whose `python` runs this instead."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f"#!{sys.executable}\n{program}")
    (folder / "bin" / "python").chmod(0o755)
    return folder


def test_a_peer_that_dies_leaves_the_end_of_its_log_in_the_error(tmp_path: Path) -> None:
    venv = fake_venv(tmp_path / "venv", "raise SystemExit('no such model')")
    server = PeerServer(PEERS[FASTAPI], Path("m.onnx"), tmp_path / "log", venv)
    with pytest.raises(PeerError, match=r"(?s)FastAPI \+ ONNX Runtime ended with status 1; .*no such model"):
        server.__enter__()


def test_a_peer_that_never_answers_is_stopped_with_its_children(tmp_path: Path) -> None:
    venv = fake_venv(
        tmp_path / "venv",
        "import subprocess, time\nsubprocess.Popen(['sleep', '321.5'], start_new_session=True)\ntime.sleep(60)",
    )
    server = PeerServer(PEERS[FASTAPI], Path("m.onnx"), tmp_path / "log", venv, start_timeout_s=1.0)
    with pytest.raises(PeerError, match="did not answer and come to rest within 1 s"):
        server.__enter__()
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "321.5"]]


def test_answers_of_other_weights_are_refused(tmp_path: Path) -> None:
    def predictions(age: float) -> Predictions:
        emotion = np.full((2, len(EMOTIONS)), 1 / len(EMOTIONS), np.float32)
        return Predictions(np.full(2, age, np.float32), np.full(2, 0.5, np.float32), emotion)

    contestant = Contestant(FASTAPI, "FP32", tmp_path / "m.onnx")
    check_answers(contestant, predictions(30.0), predictions(30.001))
    for other in (30.1, float("nan")):
        with pytest.raises(
            PeerError, match=r"answers otherwise than agegendernet: .* give all\s+servers the same weights"
        ):
            check_answers(contestant, predictions(30.0), predictions(other))


@pytest.mark.parametrize("body", [b"{}", b'{"age": 1, "gender": 0, "emotion": [0]}', b"not JSON"])
def test_json_that_is_no_answer_is_an_error(body: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        check_json_answer(body)


def test_ours_answers_the_same_over_both_protocols(triton_server: TritonServer, noise: Images) -> None:
    grpc, http = TritonEndpoint(triton_server.grpc_url), TritonHttpEndpoint(triton_server.http_url)
    expected, given = grpc.predict(noise[:3]), http.predict(noise[:3])
    np.testing.assert_allclose(given.age, expected.age, rtol=1e-5)
    np.testing.assert_allclose(given.emotion, expected.emotion, atol=1e-5)
    for endpoint in (grpc, http):
        load = endpoint.load(noise, in_flight=2, seconds=0.3, warm_up_s=0.1)
        assert len(load.latencies_ms)
        assert not load.errors


def test_a_peer_answers_as_ours_and_leaves_nothing_behind(
    repository: Path, triton_server: TritonServer, noise: Images, tmp_path: Path
) -> None:
    if not DEFAULT_VENV.exists():
        pytest.skip("the peers are not installed; run make .venv-peers/installed")
    model = shutil.copy(repository / "agegendernet" / "1" / "model.onnx", tmp_path / "model.onnx")
    with PeerServer(PEERS[FASTAPI], Path(model), tmp_path / "peer.log") as server:
        expected = TritonEndpoint(triton_server.grpc_url).predict(noise[:2])
        check_answers(Contestant(FASTAPI, "FP32", Path(model)), expected, server.endpoint.predict(noise[:2]))
        load = server.endpoint.load(noise, in_flight=4, seconds=0.3, warm_up_s=0.1)
        assert len(load.latencies_ms)
        assert not load.errors
    with pytest.raises(ConnectionError):
        server.endpoint.predict(noise[:1])


@pytest.mark.slow
@pytest.mark.timeout(1000)  # compiling takes a quiet machine seconds and a busy one minutes
def test_the_pytorch_peer_serves_an_exported_file_without_the_code_that_made_it(noise: Images, tmp_path: Path) -> None:
    if not DEFAULT_VENV.exists():
        pytest.skip("the peers are not installed; run make .venv-peers/installed")
    weights = PROJECT / "weights" / "agegendernet-128.safetensors"
    export_torch.main(export_torch.ExportTorchConfig(weights, tmp_path / "model.pt2"))
    with PeerServer(PEERS[PYTORCH], tmp_path / "model.pt2", tmp_path / "peer.log", start_timeout_s=900) as server:
        given = server.endpoint.predict(noise[:2])
    check_answers(Contestant(PYTORCH, "FP32", weights), runtimes.load(weights, "torch")(noise[:2]), given)
