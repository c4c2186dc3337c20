"""How programs end, run as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def run(source: str, *, redirected: str = "", options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    program = f"import sys, time\nfrom contract import program\ndef main():\n    {source}\nprogram.run(main)\n"
    command = ["bash", "-c", f'"$@" {redirected}', "bash", sys.executable, *options, "-c", program]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, cwd=PROJECT)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("raise program.UserError('no face; add one')", "error: no face; add one\n"),
        ("raise program.UserError('one\\ntwo')", "error: one\nerror: two\n"),
        ("open('/absent/file')", "error: /absent/file: No such file or directory\n"),
        ("import os; os.rename('/absent', '/b')", "error: /absent -> /b: No such file or directory\n"),
        ("open('/dev/full', 'w').write('x' * 100000)", "error: No space left on device\n"),
    ],
)
def test_what_a_user_can_mend_is_a_line(source: str, line: str) -> None:
    done = run(source)
    assert (done.returncode, done.stderr.decode()) == (1, line)


def test_a_bug_keeps_its_traceback_and_developers_get_every_one() -> None:
    assert b"Traceback" in run("raise KeyError('bug')").stderr
    assert b"Traceback" in run("raise program.UserError('mine')", options=("-X", "dev")).stderr


@pytest.mark.parametrize(("source", "status"), [("return 3", 3), ("return None", 0), ("return 'text'", 0)])
def test_a_number_is_the_status(source: str, status: int) -> None:
    assert run(source).returncode == status


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_who_has_seen_enough_is_no_error(lines: int) -> None:
    done = run(f"print('\\n'.join(['line'] * {lines}))", redirected="| head -1; exit ${PIPESTATUS[0]}")
    assert done.returncode in ((0, 141) if lines == 1 else (141,))
    assert (done.stdout, done.stderr) == (b"line\n", b"")


def test_an_output_that_is_full_is_a_line() -> None:
    done = run("print('x' * 100000)", redirected="> /dev/full")
    assert (done.returncode, done.stderr) == (1, b"error: No space left on device\n")


def test_a_closed_output_is_no_error() -> None:
    assert (run("print('x')", redirected=">&-").returncode, run("print('x')", redirected=">&-").stderr) == (0, b"")


def test_a_name_that_is_not_utf8_is_written_as_it_is() -> None:
    assert run(r"print('caf\udce9')").stdout == b"caf\xe9\n"


@pytest.mark.parametrize(
    ("times", "cleaning"), [(1, "pass"), (2, "time.sleep(60)")], ids=["once", "twice, while it cleans up"]
)
def test_an_interrupted_program_says_so_in_a_line(times: int, cleaning: str) -> None:
    source = f"""
import time
from contract import program
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        {cleaning}
program.run(main, stopped="stopped; nothing was written")
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    ) as process:
        assert process.stdout
        assert process.stderr
        for _, word in zip(range(times), ("ready", "cleaning"), strict=False):
            assert process.stdout.readline() == f"{word}\n"
            os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "stopped; nothing was written\n"


def test_after_an_interruption_the_next_one_ends_it_at_once() -> None:
    """As the interpreter joins its threads when it exits, however long they take."""
    source = """
import threading, time
from contract import program
def main():
    threading.Thread(target=time.sleep, args=(60,)).start()
    print("ready", flush=True)
    time.sleep(60)
program.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.stderr.readline() == "stopped\n"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == ""


def programs() -> list[Path]:
    folders = ("contract", "evaluation", "training", "convert", "serving", "clients", "loadtest")
    files = [path for folder in folders for path in (PROJECT / folder).rglob("*.py") if "peers" not in path.parts]
    return [path for path in files if path.name != "program.py" and _ENDING in path.read_text()]


_ENDING = 'if __name__ == "__main__":'
_STARTED_BY_PROGRAMS = ("engine_speed.py", "process.py")  # and read by them
_PRINTS_A_LINE = ("versions.py",)


@pytest.mark.parametrize("path", programs(), ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_program_ends_by_this_mechanism(path: Path) -> None:
    ending = path.read_text().rpartition(_ENDING)[2]
    assert "program.run(" in ending or path.name in (*_STARTED_BY_PROGRAMS, *_PRINTS_A_LINE)
    assert "except" not in ending
