"""The program of Triton's container: the server, locked, until it ends or a model no longer answers.

python3 -m serving.container --model-repository=/models
python3 -m serving.container --probe

Ends with status 1 where Docker is to start it again, which Docker does after growing pauses. Needs nothing that
Triton's image lacks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from contract import program
from serving.errors import StartError
from serving.lock import KEY_VARIABLE, Lock
from serving.readiness import check_models, is_ready
from serving.supervision.guard import LOOK_EVERY_S, Guard

URL = "http://127.0.0.1:8000"  # in the container
START_TIMEOUT_S = 600.0  # an engine may take minutes to load
STOP_TIMEOUT_S = 15.0


def serve(
    arguments: Sequence[str], lock: Lock | None, *, url: str = URL, command: Sequence[str] = ("tritonserver",)
) -> str:
    """Run the server until it has to be started again, and return why. Raises StartError."""
    locked = lock.arguments if lock else []
    process = subprocess.Popen([*command, *arguments, *locked], process_group=0, umask=0o077)
    headers = lock.headers if lock else {}
    try:
        _wait_until_ready(process, url, headers)
        if lock:
            lock.hide(process.pid)
        guard = Guard(process.pid, url, headers)
        while (fault := guard.fault()) is None:
            time.sleep(LOOK_EVERY_S)
        guard.close()
        return fault
    finally:
        _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, headers: Mapping[str, str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_ready(url):
        if process.poll() is not None:
            raise StartError(f"the server ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise StartError(f"not ready after {START_TIMEOUT_S:.0f} s")
        time.sleep(0.1)
    check_models(url, headers)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let requests in flight finish, as far as the server is able to."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def main(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    key = os.environ.get(KEY_VARIABLE)
    if key is None:
        raise StartError(f"{KEY_VARIABLE} is not set; make a key with python -m serving.lock, or set it empty for none")
    if not key:
        print(f"WARNING: {KEY_VARIABLE} is empty, so whoever reaches a port can use and stop this server", flush=True)
    lock = Lock(key) if key else None
    if arguments == ["--probe"]:
        check_models(URL, lock.headers if lock else {})
        return
    try:
        fault = serve(arguments, lock)
    except KeyboardInterrupt:  # by docker stop
        return
    raise StartError(f"{fault}; to be started again")


if __name__ == "__main__":
    program.run(lambda: main(sys.argv[1:]))
