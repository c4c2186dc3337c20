"""Watches a running server, because Triton itself goes on saying "ready" after a model's process has died.

It looks for two signs: processes that end or stand still, five times a second; and models that do not answer a request
of its own, every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from serving.errors import BusyError, NoAnswerError, StartError
from serving.readiness import answers_given, check_models

LOOK_EVERY_S = 0.2
STANDSTILL_S = 1.0  # a debugger, or a job control's stop, may hold a process for a moment
ASK_EVERY_S = 5.0
ANSWER_WITHIN_S = 30.0  # without an answer to anybody in that time a model hangs, however much it has to do


class Guard:
    """Of one server process, from its start on: `fault` says what is wrong, at any time."""

    def __init__(self, pid: int, http_url: str, headers: Mapping[str, str], *, models_may_go: bool = False) -> None:
        self._server = pid
        self._url, self._headers = http_url, headers
        self._models_may_go = models_may_go  # by request, as in a promotion: only an inference tells them from the dead
        self._members = _group(pid)
        self._stopped_since: float | None = None
        self._asked_at = time.monotonic()
        self._asking: Future[str | None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="guard")

    def close(self) -> None:
        """Ask no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def fault(self) -> str | None:
        """Return why the server has to be started again, or None; call it every LOOK_EVERY_S."""
        return self._process_fault() or self._answer_fault()

    def _process_fault(self) -> str | None:
        states = {pid: _state(pid) for pid in self._members}
        if states.get(self._server) in (None, "Z"):
            return "the server has ended"
        if gone := [pid for pid, state in states.items() if state in (None, "Z")]:
            if not self._models_may_go:
                return f"a model's process ({gone[0]}) has ended"
            self._members = _group(self._server)
            self._asked_at = -ASK_EVERY_S  # at once
        if not [pid for pid, state in states.items() if state in ("T", "t")]:
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = time.monotonic()
        elif time.monotonic() - self._stopped_since > STANDSTILL_S:
            return "a process of the server has been stopped"
        return None

    def _answer_fault(self) -> str | None:
        if self._asking is None:
            if time.monotonic() - self._asked_at >= ASK_EVERY_S:
                self._asking = self._thread.submit(self._ask)
            return None
        if not self._asking.done():
            return None
        fault, self._asking, self._asked_at = self._asking.result(), None, time.monotonic()
        return fault

    def _ask(self) -> str | None:
        before = self._answers_given()
        try:
            check_models(self._url, self._headers, timeout_s=ANSWER_WITHIN_S)
        except BusyError:
            return None
        except NoAnswerError as error:
            return None if self._answers_given() > before else str(error)
        except StartError as error:
            return str(error)
        return None

    def _answers_given(self) -> int:
        with suppress(OSError):
            return answers_given(self._url, self._headers)
        return 0


def _group(leader: int) -> list[int]:
    """Processes that the leader started, and itself."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) == leader:
                found.append(int(folder.name))
    return found


def _state(pid: int) -> str | None:
    """As in proc(5): R, S, D run or wait, T and t are stopped, Z has ended; None for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
