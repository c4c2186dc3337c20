"""The program of Triton's container, with the CPU server in the place of the container's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.repository import CPU_CONFIG_NAME
from serving.errors import StartError
from serving.installation import DEFAULT_VENV, REPOSITORY, find_installation
from serving.launch import PROJECT, Ports, server_arguments
from serving.lock import Lock
from serving.readiness import check_models, is_ready

PROGRAM = """
import sys
from serving.container import serve
from serving.lock import Lock
print(serve([], Lock(sys.argv[1]), url=sys.argv[2], command=sys.argv[3:]), flush=True)
"""


@pytest.mark.skipif(not DEFAULT_VENV.exists(), reason="the Triton server is not installed")
def test_it_locks_the_server_and_ends_when_a_model_dies(
    repository: Path, tmp_path: Path, survivors: Callable[[int], list[int]]
) -> None:
    lock, ports = Lock(), Ports().chosen()
    arguments = server_arguments(
        REPOSITORY, config_name=CPU_CONFIG_NAME, model_control=False, verbose=False, exit_timeout_s=5
    )
    launch = find_installation().launch(repository, arguments, ports)
    command = [sys.executable, "-c", PROGRAM, lock.key, ports.http_url, *launch.arguments]
    environment = {**launch.environment, "PYTHONPATH": str(PROJECT)}
    with (tmp_path / "log").open("wb") as log:
        program = subprocess.Popen(
            command, cwd=launch.folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        wait_until_ready(ports.http_url, program)
        check_models(ports.http_url, lock.headers)
        with pytest.raises(StartError, match="does not answer"):
            check_models(ports.http_url, {})
        server = int(Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()[0])
        os.kill(stub_in_group(server), signal.SIGKILL)
        printed, _ = program.communicate(timeout=60)
        assert "a model's process" in printed
        assert "has ended" in printed
        assert survivors(server) == []
    finally:
        program.kill()
        program.wait()
        for cleaning in launch.cleanup:
            subprocess.run(cleaning, check=False, capture_output=True)


def wait_until_ready(url: str, program: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not is_ready(url):
        assert program.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.0)  # the program has asked every model, and watches


def stub_in_group(group: int) -> int:
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            member_of = int(command.with_name("stat").read_text().rpartition(")")[2].split()[2])
            if member_of == group and b"python_backend_stub" in command.read_bytes().split(b"\0")[0]:
                return int(command.parent.name)
        except OSError:
            continue
    raise AssertionError("no model has a process")


def test_without_a_key_it_says_how_to_make_one() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "AGEGENDERNET_KEY"}
    command = [sys.executable, "-m", "serving.container"]
    ran = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: AGEGENDERNET_KEY is not set; make a key with python -m serving.lock")
