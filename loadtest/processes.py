"""What a server with all its processes takes of the cores."""

from __future__ import annotations

from contextlib import suppress

import psutil


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return the process, and all that it and its descendants have started and that still run."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return [process]


def processor_time_s(process: psutil.Process) -> float:
    """Return the processor time of the process's family so far, user and system."""
    total_s = 0.0
    for member in family(process):
        with suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            total_s += times.user + times.system
    return total_s
