import dataclasses
import io
import json
import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

from contract.repository import engine_manifest_path
from contract.samples import load_samples
from contract.spec import DECODE_MODEL_NAME, ENCODED_IMAGE, ENSEMBLE_NAME, IMAGE, MODEL_NAME, Images
from convert.errors import ModelFileError
from convert.promote import PromoteConfig, RejectedError, checks_table, main, promote, roll_back
from convert.promotion import model_control
from convert.promotion.model_control import ModelControlError, load_version
from convert.promotion.versions import ModelVersions, VersionError, check_highest_is_served
from convert.runtimes import load
from evaluation.agreement import Check
from evaluation.limits import Limits
from serving.server import ANY_PORTS, TritonServer
from tests.convert.conftest import Models

ANYTHING = Limits(age_mae_years=1000, gender_accuracy=1, emotion_accuracy=1)
PROJECT = Path(__file__).resolve().parents[2]


# The decision, which tests/evaluation/test_agreement.py is about


def test_the_table_names_what_failed() -> None:
    table = checks_table([Check("all", 100, "gender_accuracy", 1.0, 0.98, 0.02, 0.005)])
    assert "| all | 100 | gender accuracy | 1.0000 | 0.9800 | +0.0200 | 0.005 | **fail** |" in table


# The repository


@pytest.fixture
def model_folder(tmp_path: Path, models: Models) -> Path:
    """model_repository/agegendernet with one version, as the server gets it."""
    folder = tmp_path / "model_repository" / MODEL_NAME
    source = PROJECT / "model_repository" / MODEL_NAME
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.onnx", "*.plan*", "__pycache__", "[2-9]"))
    shutil.copyfile(models.onnx, folder / "1" / "model.onnx")
    return folder


def promotion(model_folder: Path, models: Models, faces: Path, **changes: object) -> PromoteConfig:
    config = PromoteConfig(candidate=models.fp16_onnx, manifest=faces, model=model_folder, runtime="onnx")
    return dataclasses.replace(config, overall=ANYTHING, group=ANYTHING, **changes)


def test_a_promoted_version_holds_the_model_its_code_and_what_was_compared(
    model_folder: Path, models: Models, faces: Path
) -> None:
    config = promotion(model_folder, models, faces)
    assert promote(ModelVersions(model_folder), config).startswith("version 2 replaces version 1")
    version = model_folder / "2"
    assert {path.name for path in version.iterdir()} == {"model.onnx", "model.py", "promotion.json", "promotion.md"}
    assert (version / "model.onnx").read_bytes() == models.fp16_onnx.read_bytes()
    assert (version / "model.py").read_text() == (model_folder / "1" / "model.py").read_text()
    record = json.loads((version / "promotion.json").read_text())
    assert record["replaces_version"] == 1
    assert record["comparisons"][0]["candidate"]["overall"]["samples"] == len(load_samples(faces))
    assert "| all | 24 | age mae years |" in (version / "promotion.md").read_text()


def test_a_rejected_candidate_leaves_the_repository_as_it_was(model_folder: Path, models: Models, faces: Path) -> None:
    before = sorted(model_folder.rglob("*"))
    config = promotion(model_folder, models, faces)
    with pytest.raises(RejectedError, match="worse than version 1"):
        promote(ModelVersions(model_folder), replace(config, overall=Limits(age_mae_years=-1000)))
    assert sorted(model_folder.rglob("*")) == before


def test_rolling_back_serves_the_version_before_and_keeps_the_other(
    model_folder: Path, models: Models, faces: Path
) -> None:
    versions, config = ModelVersions(model_folder), promotion(model_folder, models, faces)
    promote(versions, config)
    assert "version 1 again" in roll_back(versions, config)
    assert versions.numbers() == [1]
    assert (model_folder / "rolled-back-2" / "model.onnx").exists()
    with pytest.raises(VersionError, match="no version before 1"):
        roll_back(versions, config)


def test_a_number_is_never_given_twice(model_folder: Path, models: Models, faces: Path) -> None:
    versions, config = ModelVersions(model_folder), promotion(model_folder, models, faces)
    promote(versions, config)
    roll_back(versions, config)
    promote(versions, config)
    assert versions.numbers() == [1, 3]


def test_folders_that_the_server_passes_over_are_no_versions(tmp_path: Path) -> None:
    for name in ("1", "2", "10", "07", "configs", "rolled-back-11", ".promoting-3"):
        (tmp_path / name).mkdir()
    assert ModelVersions(tmp_path).numbers() == [1, 2, 10]
    assert ModelVersions(tmp_path).unused() == 12


def test_what_a_killed_promotion_left_is_replaced(model_folder: Path, models: Models, faces: Path) -> None:
    (model_folder / ".promoting-2").mkdir()
    (model_folder / ".promoting-2" / "garbage").touch()
    promote(ModelVersions(model_folder), promotion(model_folder, models, faces))
    assert not (model_folder / "2" / "garbage").exists()


def test_the_repositorys_configurations_serve_the_highest_version_alone(model_folder: Path) -> None:
    check_highest_is_served(model_folder)
    config = model_folder / "configs" / "cpu.pbtxt"
    config.write_text(config.read_text().replace("latest { num_versions: 1 }", "all { }"))
    with pytest.raises(VersionError, match=r"cpu\.pbtxt has a version_policy"):
        check_highest_is_served(model_folder)


def test_a_repository_that_serves_engines_needs_one_of_the_candidate(
    model_folder: Path, models: Models, faces: Path, tmp_path: Path
) -> None:
    versions, config = ModelVersions(model_folder), promotion(model_folder, models, faces)
    (model_folder / "1" / "model.plan").touch()
    with pytest.raises(ModelFileError, match=r"pass it as --plan"):
        promote(versions, config)
    plan = tmp_path / "model.plan"
    plan.touch()
    fields = (
        "library",
        "tensorrt_version",
        "gpu_name",
        "compute_capability",
        "precision",
        "hardware_compatibility",
        "built_at",
    )
    values = dict.fromkeys(fields, "") | {"onnx_sha256": "0" * 64, "profile": {"min": 1, "opt": 8, "max": 64}}
    counts = ("layer_types", "convolution_types", "layer_precisions", "convolution_precisions")
    values |= {key: {} for key in counts} | {"version_compatible": False}
    engine_manifest_path(plan).write_text(json.dumps(values))
    with pytest.raises(ModelFileError, match="was not built from"):
        promote(versions, replace(config, plan=plan))


def test_a_server_that_cannot_be_reached_undoes_the_promotion(model_folder: Path, models: Models, faces: Path) -> None:
    versions = ModelVersions(model_folder)
    with pytest.raises(ModelControlError, match=r"127\.0\.0\.1:9"):
        promote(versions, promotion(model_folder, models, faces, url="grpc://127.0.0.1:9"))
    assert versions.numbers() == [1]


def test_a_second_promotion_at_the_same_time_is_refused(model_folder: Path, models: Models, faces: Path) -> None:
    versions, config = ModelVersions(model_folder), promotion(model_folder, models, faces)
    with versions.locked(), pytest.raises(VersionError, match="another promotion of"):
        main(config)
    main(config)
    assert versions.numbers() == [1, 2]


def test_an_address_that_is_not_grpc_is_refused() -> None:
    with pytest.raises(ModelControlError, match="not a gRPC address"):
        load_version("http://127.0.0.1:8000", 2)


# The running server


@dataclass
class Traffic:
    """What clients saw: the version and age of every answer, and every error."""

    answers: list[tuple[str, str, float]] = field(default_factory=list)  # model, version, age
    errors: list[str] = field(default_factory=list)

    def versions(self) -> list[str]:
        """Of the model itself, in the order answered, repetitions left out."""
        seen = [version for model, version, _ in self.answers if model == MODEL_NAME]
        return [version for i, version in enumerate(seen) if i == 0 or seen[i - 1] != version]


def encoded(image: Images) -> grpc.InferInput:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    request = grpc.InferInput(ENCODED_IMAGE.name, [1, 1], ENCODED_IMAGE.dtype)
    request.set_data_from_numpy(np.array([[buffer.getvalue()]], dtype=object))
    return request


def canonical(image: Images) -> grpc.InferInput:
    request = grpc.InferInput(IMAGE.name, [1, *IMAGE.dims], IMAGE.dtype)
    request.set_data_from_numpy(image[None])
    return request


@contextmanager
def traffic(server: TritonServer, image: Images) -> Iterator[Traffic]:
    """Requests without a pause and without a retry, to the model and to the ensemble that runs it."""
    found, stop = Traffic(), threading.Event()

    def send(model: str, request: grpc.InferInput) -> None:
        with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
            while not stop.is_set():
                try:
                    result = client.infer(model, [request], client_timeout=30, headers=server.headers)
                    age = float(result.as_numpy("age")[0, 0])
                    found.answers.append((model, result.get_response().model_version, age))
                except InferenceServerException as error:
                    found.errors.append(f"{model}: {error}")

    requests = [(MODEL_NAME, canonical(image))] * 3 + [(ENSEMBLE_NAME, encoded(image))] * 2
    threads = [threading.Thread(target=send, args=request) for request in requests]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def explicit_server(model_folder: Path) -> Iterator[TritonServer]:
    """A running server that loads by request, with its ensemble."""
    if not ANY_PORTS.venv.exists():
        pytest.skip("the Triton server is not installed; run make setup")
    for name in (DECODE_MODEL_NAME, ENSEMBLE_NAME):
        shutil.copytree(PROJECT / "model_repository" / name, model_folder.parent / name)
    options = replace(ANY_PORTS, explicit_models=True, log=model_folder.parent.parent / "triton.log")
    with TritonServer(model_folder.parent, options) as server:
        yield server


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
def test_no_request_fails_while_a_version_is_promoted_and_rolled_back(
    explicit_server: TritonServer,
    model_folder: Path,
    models: Models,
    faces: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    versions = ModelVersions(model_folder)
    config = promotion(model_folder, models, faces, url=explicit_server.grpc_url)
    image = next(load_samples(faces).image_batches(1))
    with traffic(explicit_server, image[0]) as found:
        wait_for(lambda: len(found.answers) > 50)
        forward = promote(versions, config)
        wait_for(lambda: found.versions()[-1] == "2")
        back = roll_back(versions, config)
        wait_for(lambda: found.versions()[-1] == "1")
    with capsys.disabled():
        print(f"\n{len(found.answers)} requests, {len(found.errors)} failures\n{forward}\n{back}")
    assert found.errors == []
    assert {model for model, _, _ in found.answers} == {MODEL_NAME, ENSEMBLE_NAME}
    assert {version for model, version, _ in found.answers if model == MODEL_NAME} == {"1", "2"}
    # Both versions answered, each with its own model's answer, and nothing else did.
    expected = {round(float(load(model, "openvino")(image).age[0]), 1) for model in (models.onnx, models.fp16_onnx)}
    assert {round(age, 1) for _, _, age in found.answers} == expected


@pytest.mark.slow
def test_a_version_that_does_not_load_changes_nothing_for_clients(
    explicit_server: TritonServer, model_folder: Path, models: Models, faces: Path
) -> None:
    versions = ModelVersions(model_folder)
    (model_folder / "1" / "model.py").write_text("raise RuntimeError('broken on purpose')")  # copied into version 2
    image = next(load_samples(faces).image_batches(1))[0]
    with traffic(explicit_server, image) as found:
        wait_for(lambda: len(found.answers) > 20)
        with pytest.raises(ModelControlError, match="did not load agegendernet 2"):
            promote(versions, promotion(model_folder, models, faces, url=explicit_server.grpc_url))
        count = len(found.answers)
        wait_for(lambda: len(found.answers) > count + 20)
    assert found.errors == []
    assert found.versions() == ["1"]
    assert versions.numbers() == [1]


class Relay(socketserver.ThreadingTCPServer):
    """Passes gRPC on to a server, but cuts a connection that asks whether a version is ready, `cuts` times."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, server: TritonServer, cuts: int) -> None:
        self.target, self.cuts = int(server.grpc_url.rpartition(":")[2]), cuts
        super().__init__(("127.0.0.1", 0), _Relayed)


class _Relayed(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.target)) as inner:
            back = threading.Thread(target=self._copy, args=(inner, self.request))
            back.start()
            while data := self.request.recv(1 << 16):
                if b"/ModelReady" in data and self.server.cuts:
                    self.server.cuts -= 1
                    break
                inner.sendall(data)
            inner.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)


@pytest.mark.slow
@pytest.mark.parametrize(("cuts", "served"), [(1, 2), (1000, 1)])
def test_a_lost_answer_leaves_server_and_repository_on_the_same_version(
    explicit_server: TritonServer,
    model_folder: Path,
    models: Models,
    faces: Path,
    monkeypatch: pytest.MonkeyPatch,
    cuts: int,
    served: int,
) -> None:
    monkeypatch.setattr(model_control, "READY_WITHIN_S", 2.0)
    versions = ModelVersions(model_folder)
    with Relay(explicit_server, cuts) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        port = relay.server_address[1]
        (model_folder.parent / "headers").write_text("".join(f"{n}: {v}\n" for n, v in explicit_server.headers.items()))
        config = promotion(model_folder, models, faces, url=f"grpc://127.0.0.1:{port}")
        config = replace(config, headers_file=model_folder.parent / "headers")
        with nullcontext() if served == 2 else pytest.raises(ModelControlError, match="back at version 1"):
            promote(versions, config)
        relay.shutdown()
    assert versions.current() == served
    with grpc.InferenceServerClient(explicit_server.grpc_url.removeprefix("grpc://")) as client:
        assert client.is_model_ready(MODEL_NAME, str(served))
        assert not client.is_model_ready(MODEL_NAME, str(3 - served))
