import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.data.packing.parallel import map_in_processes

REPOSITORY = Path(__file__).parents[4]


def process_of(task: int) -> tuple[int, int]:
    return task, os.getpid()


def test_results_come_in_the_order_of_the_tasks_from_other_processes() -> None:
    results = list(map_in_processes(abs, [-3, -1, -2], workers=2))
    assert results == [3, 1, 2]


def test_one_worker_stays_in_this_process() -> None:
    assert list(map_in_processes(process_of, [1, 2], workers=1)) == [(1, os.getpid()), (2, os.getpid())]


def test_no_task_is_no_result() -> None:
    assert list(map_in_processes(abs, [], workers=4)) == []


def test_an_error_of_a_task_is_raised_here() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_in_processes(int, ["1", "x", "3"], workers=2))


@pytest.mark.parametrize("signal_sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_the_program(signal_sent: signal.Signals) -> None:
    code = (
        "import time; from training.data.packing.parallel import map_in_processes\n"
        "for _ in map_in_processes(time.sleep, [0, 0] + [0.3] * 200, workers=2): print('working', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        os.kill(program.pid, signal_sent)
        program.wait(10)
    assert eventually_empty(program.pid)


def eventually_empty(session: int) -> bool:
    """Whether no process of the session is left within ten seconds."""
    for _ in range(100):
        if not any(session_of(path) == session for path in Path("/proc").glob("[0-9]*")):
            return True
        time.sleep(0.1)
    return False


def session_of(process: Path) -> int | None:
    try:
        state, _parent, _group, session = (process / "stat").read_text().rsplit(")", 1)[1].split()[:4]
    except (OSError, ValueError):
        return None
    return None if state == "Z" else int(session)
