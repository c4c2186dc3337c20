"""Processor time of real processes."""

from __future__ import annotations

import subprocess
import sys

import psutil

from loadtest.processes import family, processor_time_s

# A parent that waits for a child that computes.
BUSY = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"


def test_what_children_take_counts_and_what_has_ended_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as parent:
        process = psutil.Process(parent.pid)
        try:
            while processor_time_s(process) < 1.0:
                assert parent.poll() is None
            assert len(family(process)) == 2
            own = process.cpu_times()
            assert own.user + own.system < 0.8
        finally:
            for member in family(process):
                member.kill()
    assert family(process) == [process]
    assert processor_time_s(process) == 0.0
