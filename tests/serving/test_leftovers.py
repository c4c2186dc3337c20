"""What a server needs of its machine before it starts, and what earlier ones left there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serving.errors import SetupError
from serving.launch import PROJECT
from serving.supervision import log as server_log
from serving.supervision.leftovers import remove_leftovers
from serving.supervision.log import open_log, reason_in, rotate


def test_what_the_dead_left_goes_and_what_the_living_have_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    regions = {pid: Path(f"/dev/shm/agegendernet_{pid}_1_x") for pid in (ended.pid, os.getpid())}
    folders = {pid: tmp_path / f"agegendernet-model-{pid}-x" for pid in (ended.pid, os.getpid())}
    try:
        for pid in regions:
            regions[pid].touch()
            folders[pid].mkdir()
            (folders[pid] / "model.onnx").touch()
        remove_leftovers()
        assert [path.exists() for path in (*regions.values(), *folders.values())] == [False, True, False, True]
    finally:
        for region in regions.values():
            region.unlink(missing_ok=True)


def test_a_log_is_appended_to_rotated_and_read_from_the_last_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "triton.log"
    for words in (b'E1129 12:00:00.0 1 x.cc:1] "the first"\n', b'E1129 12:00:00.0 1 x.cc:1] "the second"\n'):
        with open_log(path) as file:
            file.write(words)
    assert "the first" in path.read_text()
    assert reason_in(path).startswith("the second")
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(server_log, "MAX_BYTES", 50)
    with path.open("ab") as file:  # as the server holds it meanwhile
        rotate(path)
        file.write(b"afterwards\n")
    assert path.read_bytes() == b"afterwards\n"
    assert "the second" in path.with_name("triton.log.1").read_text()


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match=r"the log .* cannot be written .*--log"):
        open_log(tmp_path / "file" / "triton.log")


def test_too_few_open_files_are_one_line_and_a_soft_limit_is_raised() -> None:
    program = (
        "import resource, sys\n"
        "from serving.errors import SetupError\n"
        "from serving.launch import raise_open_files_limit\n"
        "soft, hard = map(int, sys.argv[1:])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "try: raise_open_files_limit()\n"
        "except SetupError as error: sys.exit(str(error))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )

    def limited(soft: int, hard: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, str(soft), str(hard)]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)

    assert limited(256, 2000).stdout == "2000\n"
    refused = limited(64, 64)
    assert refused.stderr == (
        "only 64 files may be open at a time, and each connection is one; allow 1024 or more with ulimit -n, or "
        "LimitNOFILE= of systemd\n"
    )
