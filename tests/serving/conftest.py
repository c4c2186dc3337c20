"""Virtual environments of the server with one thing changed, and what is left of a process group."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.installation import DEFAULT_VENV

CloneVenv = Callable[[dict[str, Path]], Path]
Survivors = Callable[[int], list[int]]


@pytest.fixture
def clone_venv(tmp_path: Path) -> CloneVenv:
    """Make a copy of .venv-triton in which some packages come from elsewhere: {"numpy": folder of another}."""
    if not DEFAULT_VENV.exists():
        pytest.skip("the Triton server is not installed; run make setup")
    [packages] = DEFAULT_VENV.glob("lib/python3.*/site-packages")

    def clone(changed: dict[str, Path]) -> Path:
        venv = tmp_path / "venv"
        folder = venv / packages.relative_to(DEFAULT_VENV)
        folder.mkdir(parents=True)
        shutil.copy(DEFAULT_VENV / "pyvenv.cfg", venv)
        shutil.copytree(DEFAULT_VENV / "bin", venv / "bin", symlinks=True)
        for package in packages.iterdir():
            if package.name == "pytriton" and package.name not in changed:
                shutil.copytree(package, folder / package.name)  # the stub is placed in it
            elif package.name not in changed:
                (folder / package.name).symlink_to(package)
        for name, source in changed.items():
            (folder / name).symlink_to(source)
        return venv

    return clone


@pytest.fixture
def survivors() -> Survivors:
    """Ids of the living processes of a group, once it has had ten seconds to end."""

    def after_a_while(group: int) -> list[int]:
        deadline = time.monotonic() + 10
        while (members := _members(group)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return members

    return after_a_while


def _members(group: int) -> list[int]:
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member_of = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(member_of) == group and state != "Z":
            members.append(int(stat.parent.name))
    return members
