"""The command line: make serve and make demo."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.repository import copy_with_model
from contract.spec import MODEL_NAME
from serving.installation import DEFAULT_VENV
from serving.launch import PROJECT

pytestmark = pytest.mark.skipif(not DEFAULT_VENV.exists(), reason="the Triton server is not installed")

ANY_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def command(repository: Path, log: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "serving.run", "--repository", str(repository), "--log", str(log), *ANY_PORTS, *more]


def test_a_command_runs_against_the_server_and_gives_the_exit_status(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    then = f'{sys.executable} -c \'import os; print("seen", os.environ["GRPC_URL"], os.environ["HTTP_URL"])\'; exit 7'
    ran = subprocess.run(
        command(repository, log, "--then", then), cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 7, ran.stderr
    assert re.search(r"^seen grpc://127\.0\.0\.1:\d+ http://127\.0\.0\.1:\d+$", ran.stdout, re.MULTILINE)
    assert "Started GRPCInferenceService" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_stops_the_server_and_is_no_failure(
    repository: Path, tmp_path: Path, number: int, survivors: Callable[[int], list[int]]
) -> None:
    log = tmp_path / "triton.log"
    with subprocess.Popen(command(repository, log), cwd=PROJECT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        printed = "".join(iter(program.stdout.readline, "Ctrl-C stops it\n"))
        assert all(name in printed for name in ("gRPC", "HTTP", "metrics"))
        [server] = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        program.send_signal(number)
        assert program.wait(timeout=30) == 0
    assert survivors(int(server)) == []


def test_an_interruption_reaches_the_command_as_well(
    repository: Path, tmp_path: Path, survivors: Callable[[int], list[int]]
) -> None:
    then = "sleep 0.5; echo $$; sleep 60; echo never"
    with subprocess.Popen(
        command(repository, tmp_path / "triton.log", "--then", then), cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        group = next(int(line) for line in program.stdout if line.strip().isdecimal())
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=30) == 130
        assert "never" not in program.stdout.read()
    assert survivors(group) == []


def test_what_is_missing_is_one_line_and_status_1(tmp_path: Path) -> None:
    ran = subprocess.run(
        command(tmp_path / "nowhere", tmp_path / "log"), cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert re.fullmatch(r"error: .*is no model repository.*\n", ran.stderr)


def test_a_model_from_anywhere_is_served_and_the_repository_left_alone(repository: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine.onnx"
    shutil.copy(repository / MODEL_NAME / "1" / "model.onnx", model)
    empty = copy_with_model(repository, tmp_path / "model_repository", model)
    (empty / MODEL_NAME / "1" / "model.onnx").unlink()
    files = set(empty.rglob("*"))
    more = ("--model", str(model), "--then", "exit 0")
    ran = subprocess.run(
        command(empty, tmp_path / "triton.log", *more), cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert f"serving {model}" in ran.stdout
    assert set(empty.rglob("*")) == files


def test_a_model_that_is_not_there_is_one_line(repository: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        command(repository, tmp_path / "triton.log", "--model", "absent.onnx"),
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr == "error: absent.onnx cannot be served: No such file or directory: absent.onnx\n"
