"""README's commands are run as they stand there: what a reader copies must work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def blocks(mark: str) -> list[str]:
    """The contents of README's code blocks that open with ```<mark>."""
    return re.findall(rf"^```{mark}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def make_commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("make")]


@pytest.mark.parametrize("command", sorted(set(make_commands())))
def test_every_make_command_names_a_target_and_real_variables(command: str) -> None:
    words = shlex.split(command)[1:]
    variables = re.findall(r"^([A-Z0-9_]+) :=", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert name in (variables if is_variable else TARGETS)
    subprocess.run(["make", "--dry-run", *words], cwd=PROJECT, check=True, capture_output=True)


def test_every_target_is_in_the_readme_or_in_the_help() -> None:
    shown = subprocess.run(["make"], cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    assert all(f"make {target} " in shown for target in TARGETS)


@pytest.mark.slow
def test_the_step_by_step_commands_run_one_after_the_other(tmp_path: Path) -> None:
    if not (PROJECT / ".venv-triton").exists():
        pytest.skip("the Triton server is not installed; run make setup")
    for name in ("contract", "evaluation", "training", "convert", "serving", "clients", ".venv-triton"):
        (tmp_path / name).symlink_to(PROJECT / name)
    shutil.copytree(
        PROJECT / "model_repository", tmp_path / "model_repository", ignore=shutil.ignore_patterns("model.onnx")
    )
    [steps] = blocks("sh step-by-step")
    path = f"{PROJECT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    # bash -e stops at the first command that fails, which is then the last line of the output.
    run = subprocess.run(
        ["bash", "-euxc", steps],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "They agree" in run.stdout
