"""The Triton server that ships in the wheel nvidia-pytriton: where it is and what it needs around it to run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contract.files import replacing
from serving.errors import SetupError

PROJECT = Path(__file__).resolve().parent.parent
DEFAULT_VENV = PROJECT / ".venv-triton"

# Asked of the environment's own interpreter, whose libpython the Python backend's processes load.
_PROBE = """
import ctypes, importlib.util, json, sysconfig
library = sysconfig.get_config_var("INSTSONAME") or ""
folder = sysconfig.get_config_var("LIBDIR") or ""
def loads(path):
    try:
        return bool(ctypes.CDLL(path))
    except OSError:
        return False
print(json.dumps({
    "version": sysconfig.get_python_version(),
    "package": (importlib.util.find_spec("pytriton") or type("", (), {"origin": None})).origin,
    "library_folder": folder if loads(f"{folder}/{library}") else None,
    "library_known": loads(library) if ".so" in library else loads(f"libpython{sysconfig.get_python_version()}.so.1.0"),
}))
"""


@dataclass(frozen=True)
class Installation:
    """A server binary, its backends, and the variables that it is started with."""

    binary: Path
    backends: Path
    environment: dict[str, str]


def find_installation(venv: Path = DEFAULT_VENV) -> Installation:
    """Look into a virtual environment and complete its Python backend. Raises SetupError for what is missing."""
    python = venv / "bin" / "python"
    if not python.exists():
        raise SetupError(f"{venv} does not exist; install the server with make setup")
    probe = json.loads(subprocess.run([python, "-c", _PROBE], check=True, capture_output=True, text=True).stdout)
    if probe["package"] is None:
        raise SetupError(f"{venv} lacks the package nvidia-pytriton; install it again with make setup")
    version, library_folder = probe["version"], probe["library_folder"]
    if library_folder is None and not probe["library_known"]:
        raise SetupError(
            f"the Python backend needs libpython{version}.so.1.0; install it, on Debian with apt-get install "
            f"libpython{version}"
        )
    package = Path(probe["package"]).parent / "tritonserver"
    _place_stub(package, version)
    environment = {
        **os.environ,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",  # the backend's processes run its `python3`
        "PYTHONPATH": str(PROJECT),  # the models import contract
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (library_folder, os.environ.get("LD_LIBRARY_PATH")))),
    }
    return Installation(package / "bin" / "tritonserver", package / "backends", environment)


def _place_stub(package: Path, version: str) -> None:
    """The wheel keeps one stub for each Python version; the backend looks for one beside its library."""
    source = package / "python_backend_stubs" / version / "triton_python_backend_stub"
    target = package / "backends" / "python" / source.name
    if not source.exists():
        versions = ", ".join(sorted(path.name for path in source.parent.parent.iterdir()))
        raise SetupError(
            f"the server has no Python backend for Python {version}; make .venv-triton with one of {versions}"
        )
    if not target.exists() or target.read_bytes() != source.read_bytes():
        with replacing(target) as temporary:
            shutil.copy2(source, temporary)
