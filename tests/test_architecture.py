"""Who imports whom: contract is the leaf, clients need no torch, nothing runs against the stream or in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each package may import of the others.
ALLOWED: dict[str, set[str]] = {
    "contract": set(),
    "evaluation": {"contract"},
    "training": {"contract", "evaluation"},
    "convert": {"contract", "evaluation", "training"},
    "clients": {"contract", "evaluation"},
    "serving": {"contract"},
    "loadtest": {"contract", "evaluation", "clients", "serving"},
    "model_repository": {"contract"},  # run by Triton in an environment of its own
}
WITHOUT_TORCH = ("contract", "evaluation", "clients", "serving", "loadtest", "model_repository")
TORCH = {"torch", "torchvision"}
IMPORTABLE_HERE = (
    "contract",
    "evaluation",
    "clients",
    "serving",
    "loadtest",
)


# Programs that others would write, run in .venv-peers, whose frameworks are not installed here: they may import torch.
# Of this project they may import only what loadtest may.
PEERS = ROOT / "loadtest/compare/peers"


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_packages(source: str, package: str) -> Iterator[str]:
    """Top-level names of all imports, those inside functions too; a relative one is of the package itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level or node.module is None else node.module.split(".")[0]


WRITTEN = [package for package in ALLOWED if modules_of(package)]
MODULES = [path for package in WRITTEN for path in modules_of(package)]


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b, c\nfrom d.e import f\nfrom . import g\ndef h():\n    if True:\n        import i as j\n"
    assert sorted(imported_packages(source, "own")) == ["a", "c", "d", "i", "own"]


def test_the_walk_sees_the_packages() -> None:
    assert {"contract", "training"} <= set(WRITTEN)
    assert ROOT / "contract" / "spec.py" in MODULES
    assert {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} <= set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    imported = set(imported_packages(path.read_text(encoding="utf-8"), package))
    forbidden = (set(ALLOWED) | {"tests"}) - ALLOWED[package] - {package}
    if package in WITHOUT_TORCH and PEERS not in path.parents:
        forbidden |= TORCH
    assert not imported & forbidden


@pytest.mark.parametrize("package", [package for package in WRITTEN if package in IMPORTABLE_HERE])
def test_importing_a_package_leaves_torch_and_its_non_dependencies_out(package: str) -> None:
    """Also through third parties, hence in a fresh process with every module of the package."""
    first = ["locust"] if package == "loadtest" else []  # it makes the standard library cooperative
    names = [*first, *(module_name(path) for path in modules_of(package) if PEERS not in path.parents)]
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    command = [sys.executable, "-c", program, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert package in loaded
    assert not loaded & (TORCH | (set(ALLOWED) - ALLOWED[package] - {package}))


MODULES_A_FOLDER = 12  # more are a drawer, not a room
# A folder that holds more, and why.
CROWDED: dict[str, str] = {}


def modules_by_folder() -> dict[str, list[str]]:
    """The modules of each folder, without `__init__` and `__main__`, by the folder's path."""
    folders: dict[str, list[str]] = {}
    for path in MODULES:
        if not path.stem.startswith("__"):
            folders.setdefault(str(path.parent.relative_to(ROOT)), []).append(path.stem)
    return folders


def test_no_folder_is_a_drawer() -> None:
    crowded = {folder: len(names) for folder, names in modules_by_folder().items() if len(names) > MODULES_A_FOLDER}
    assert crowded.keys() == CROWDED.keys(), crowded


def imported_modules(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The project's modules that one imports, inside functions too; a package never stands for its modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name in known)


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {module_name(path): path for path in MODULES}
    graph = {name: set(imported_modules(path, known)) for name, path in known.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
