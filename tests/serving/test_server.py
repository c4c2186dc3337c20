"""Starting and stopping: what is missing is said in one line, and nothing is left behind."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.spec import DECODE_MODEL_NAME, MODEL_NAME
from serving.errors import ServingError, SetupError, StartError
from serving.installation import DEFAULT_VENV, REPOSITORY, STUB_NAME, find_installation
from serving.launch import LOOPBACK, PROJECT, Ports, server_arguments
from serving.server import ANY_PORTS, TritonServer

needs_server = pytest.mark.skipif(not DEFAULT_VENV.exists(), reason="the Triton server is not installed")


def refusal(error: type[ServingError], repository: Path, log: Path, **options: Any) -> str:
    """The one line with which a server that cannot start is refused."""
    with pytest.raises(error) as caught, TritonServer(repository, replace(ANY_PORTS, log=log, **options)):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "triton.log"


@needs_server
def test_stopping_leaves_no_process_and_frees_the_ports(
    repository: Path, log: Path, survivors: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(log.parent)  # the models are found from any folder
    with TritonServer(repository, replace(ANY_PORTS, log=log)) as server:
        group, address = server.pid, (LOOPBACK, int(server.grpc_url.rpartition(":")[2]))
        assert len(list(Path(f"/proc/{group}/task/{group}").glob("children"))) == 1
        socket.create_connection(address).close()
    assert survivors(group) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@needs_server
def test_it_serves_from_a_checkout_whose_name_a_shell_would_take_apart(
    repository: Path, log: Path, tmp_path: Path, clone_venv: Callable[[dict[str, Path]], Path]
) -> None:
    checkout = tmp_path / "Köln a&b; 'c'" / "my $project"
    for package in ("contract", "serving"):
        shutil.copytree(PROJECT / package, checkout / package)
    shutil.copytree(repository, checkout / "model_repository")
    clone_venv({}).rename(checkout / ".venv-triton")
    command = (
        sys.executable,
        "-m",
        "serving.run",
        "--log",
        log,
        *(f"--{n}-port=0" for n in ("http", "grpc", "metrics")),
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "TRITON_VENV": ""}
    run = subprocess.run(
        [*command, "--then=echo served"], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout.endswith("served\n"), run.stderr
    assert not list(tmp_path.glob("agegendernet-server-*")), "the folder that the server ran in"


@needs_server
def test_a_proxy_is_not_asked_for_what_is_on_this_machine(
    repository: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as proxy:
        proxy.bind((LOOPBACK, 0))  # not listening: it refuses
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://{LOOPBACK}:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with TritonServer(repository, replace(ANY_PORTS, log=log)) as server:
            for url in (server.grpc_url, server.http_url):
                command = [sys.executable, "-m", "clients.health", "--url", url]
                subprocess.run(command, cwd=PROJECT, capture_output=True, check=True)


@needs_server
def test_a_killed_server_leaves_no_shared_memory(repository: Path, log: Path) -> None:
    def regions(server: TritonServer) -> list[Path]:
        return list(Path("/dev/shm").glob(f"agegendernet_{os.getpid()}_{server.grpc_url.rpartition(':')[2]}_*"))

    with TritonServer(repository, replace(ANY_PORTS, log=log)) as server:
        assert regions(server)
        server.kill()
        assert not regions(server)


@needs_server
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="the system has no setpriv")
def test_a_server_ends_when_its_program_is_killed(
    repository: Path, log: Path, survivors: Callable[[int], list[int]]
) -> None:
    program = (
        "import sys, time; from dataclasses import replace; from pathlib import Path\n"
        "from serving.server import ANY_PORTS, TritonServer\n"
        "with TritonServer(Path(sys.argv[1]), replace(ANY_PORTS, log=Path(sys.argv[2]))) as server:\n"
        "    print(server.pid, flush=True); time.sleep(60)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, repository, log], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter.stdout:
        group = int(starter.stdout.readline())
    starter.kill()
    starter.wait()
    assert survivors(group) == []


@needs_server
@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_a_taken_port_is_named_with_its_option(repository: Path, log: Path, name: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        message = refusal(SetupError, repository, log, **{f"{name}_port": port})
    assert f"{name} port {port}" in message
    assert f"--{name}-port" in message


def test_ports_of_zero_become_different_free_ones() -> None:
    ports = Ports().chosen()
    assert len({ports.http, ports.grpc, ports.metrics, 0}) == 4


def test_a_missing_repository_is_named(tmp_path: Path, log: Path) -> None:
    assert "is no model repository" in refusal(SetupError, tmp_path / "nowhere", log)


def test_a_missing_model_is_named_with_the_command_that_makes_it(tmp_path: Path, log: Path) -> None:
    copy = tmp_path / "model_repository"
    shutil.copytree(PROJECT / "model_repository", copy, ignore=shutil.ignore_patterns("model.onnx"))
    message = refusal(SetupError, copy, log)
    assert f"{copy}/{MODEL_NAME}/1/model.onnx is missing" in message
    assert "make export" in message


def test_a_missing_environment_is_named_with_the_command_that_makes_it(
    repository: Path, tmp_path: Path, log: Path
) -> None:
    message = refusal(SetupError, repository, log, venv=tmp_path / "none")
    assert "none does not exist" in message
    assert "make setup" in message


def test_an_environment_without_the_server_is_refused(repository: Path, tmp_path: Path, log: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    assert "lacks the package nvidia-pytriton" in refusal(SetupError, repository, log, venv=tmp_path / "venv")


@needs_server
def test_a_missing_libpython_is_named_with_the_package_that_has_it(
    repository: Path, log: Path, clone_venv: Callable[[dict[str, Path]], Path]
) -> None:
    venv = clone_venv({})
    [server] = venv.glob("lib/python3.*/site-packages/pytriton/tritonserver")
    own = server / "python_backend_stubs" / server.parts[-4].removeprefix("python") / STUB_NAME
    # A stub of another Python, whose library this machine has not, stands for one whose library is not installed.
    for other in sorted(server.glob(f"python_backend_stubs/*/{STUB_NAME}"), reverse=True):
        if subprocess.run([other], capture_output=True, check=False).returncode == 127:
            break
    else:
        pytest.skip("this machine has the library of every Python")
    shutil.copy(other, own)
    message = refusal(SetupError, repository, log, venv=venv)
    assert f"libpython{other.parent.name}.so.1.0" in message
    assert "apt-get install libpython" in message


@needs_server
def test_numpy_2_in_the_servers_environment_is_found_before_anybody_is_served(
    repository: Path, log: Path, clone_venv: Callable[[dict[str, Path]], Path]
) -> None:
    numpy = importlib.util.find_spec("numpy")
    assert numpy is not None
    assert numpy.submodule_search_locations
    folder = Path(numpy.submodule_search_locations[0])  # this environment's NumPy is 2
    venv = clone_venv({"numpy": folder, "numpy.libs": folder.with_name("numpy.libs")})
    message = refusal(StartError, repository, log, venv=venv)
    assert "NumPy 2" in message
    assert "make setup" in message


@needs_server
def test_a_model_that_cannot_be_loaded_is_named_in_the_servers_own_words(
    repository: Path, tmp_path: Path, log: Path
) -> None:
    broken = tmp_path / "model_repository"
    shutil.copytree(repository, broken)
    (broken / DECODE_MODEL_NAME / "1" / "model.py").write_text("raise RuntimeError('broken on purpose')")
    message = refusal(StartError, broken, log)
    assert "broken on purpose" in message
    assert f"{DECODE_MODEL_NAME}/1/model.py" in message
    assert str(log) in message


@needs_server
def test_the_stub_is_placed_once_and_mended_when_it_is_not_the_right_one(
    clone_venv: Callable[[dict[str, Path]], Path],
) -> None:
    venv = clone_venv({})
    stub = find_installation(venv).backends / "python" / STUB_NAME
    placed = stub.stat()
    find_installation(venv)
    assert stub.stat().st_ino == placed.st_ino
    stub.write_bytes(b"half a copy")
    find_installation(venv)
    assert stub.stat().st_size == placed.st_size
    assert os.access(stub, os.X_OK)


@needs_server
def test_the_engines_configuration_is_refused_for_want_of_the_tensorrt_backend_only(tmp_path: Path, log: Path) -> None:
    copy = tmp_path / "model_repository"
    shutil.copytree(PROJECT / "model_repository", copy, ignore=shutil.ignore_patterns("model.onnx", "*.plan*"))
    (copy / MODEL_NAME / "1" / "model.plan").write_bytes(b"never read")
    arguments = server_arguments(REPOSITORY, config_name="", model_control=False, verbose=False, exit_timeout_s=5)
    launch = find_installation().launch(copy, arguments, Ports().chosen())
    with log.open("wb") as output:
        process = {"env": launch.environment, "cwd": launch.folder, "stderr": output}
        subprocess.run(launch.arguments, **process, timeout=60, check=False)
    failures = [line for line in log.read_text().splitlines() if re.match(r"E\d{4} ", line) and "Cuda" not in line]
    assert len(failures) == 2
    for failure, model in zip(failures, (f"'{MODEL_NAME}'", "'face_attributes'"), strict=True):
        assert model in failure
        assert "unable to find backend library for backend 'tensorrt'" in failure
