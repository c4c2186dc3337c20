"""The Triton server that ships in the wheel nvidia-pytriton: where it is and what it needs around it to run.

It has the Python backend only and needs no GPU, so it reads `configs/cpu.pbtxt` where a model has one.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from contract.files import replacing
from serving.errors import SetupError
from serving.launch import LOOPBACK, PROJECT, Launch, Ports
from serving.supervision.leftovers import shared_memory_prefix, temporary_folder

DEFAULT_VENV = Path(os.environ.get("TRITON_VENV") or PROJECT / ".venv-triton")
REPOSITORY, BACKENDS = Path("repository"), Path("backends")  # their names in the folder that the server runs in
STUB_NAME = "triton_python_backend_stub"

# Asked of the environment's own interpreter.
_PROBE = """
import importlib.util, json, sys, sysconfig
package = importlib.util.find_spec("pytriton")
print(json.dumps({
    "version": sysconfig.get_python_version(),
    "package": package and package.submodule_search_locations[0],
    "library_folders": [sysconfig.get_config_var("LIBDIR"), sys.base_prefix + "/lib"],
}))
"""


@dataclass(frozen=True)
class Installation:
    """A server binary, its backends, and the variables that it is started with."""

    binary: Path
    backends: Path
    environment: dict[str, str]

    def launch(self, repository: Path, arguments: list[str], ports: Ports) -> Launch:
        """Return how to start it, listening on the loopback interface. `arguments` name the repository REPOSITORY."""
        listening = [
            f"--{name}-{part}={value}"
            for name, port in (("http", ports.http), ("grpc", ports.grpc), ("metrics", ports.metrics))
            for part, value in (("address", LOOPBACK), ("port", port))
        ]
        regions = shared_memory_prefix(ports.grpc)  # a server that is killed leaves its shared memory behind
        command = (
            *(str(self.binary), f"--backend-directory={BACKENDS}", *arguments, *listening),
            f"--backend-config=python,shm-region-prefix-name={regions}",
        )
        folder = self._folder(repository)
        cleanup = (
            ("find", "/dev/shm", "-maxdepth", "1", "-name", f"{regions}*", "-delete"),
            ("rm", "-r", str(folder)),
        )
        return Launch((*_ending_with_its_parent(), *command), self.environment, cleanup, folder)

    def _folder(self, repository: Path) -> Path:
        """Make the folder that the server runs in, with links to what it reads.

        The backend starts each model by a line for a shell, in which every path stands as it is given to the server: a
        space would take it apart, and what follows an "&" would be run. So it is given these names and no others.
        """
        folder = temporary_folder("server")
        (folder / REPOSITORY).symlink_to(repository.absolute())
        (folder / BACKENDS).symlink_to(self.backends)
        (folder / "contract").symlink_to(PROJECT / "contract")  # models look for it where they run, not in PYTHONPATH
        return folder


def find_installation(venv: Path = DEFAULT_VENV) -> Installation:
    """Look into a virtual environment and complete its Python backend. Raises SetupError for what is missing."""
    venv = venv.absolute()
    found = _probe(venv)
    version = found["version"]
    folders = [folder for folder in found["library_folders"] if Path(folder, f"libpython{version}.so.1.0").exists()]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", os.defpath)]),  # whose python3 the stub runs
        "LD_LIBRARY_PATH": os.pathsep.join([*folders, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
    }
    server = Path(found["package"], "tritonserver")
    installation = Installation(server / "bin" / "tritonserver", server / "backends", environment)
    _place_stub(server, version)
    _check_stub(installation, version)
    return installation


def _probe(venv: Path) -> dict[str, str]:
    python = venv / "bin" / "python"
    if not python.exists():
        raise SetupError(f"{venv} does not exist; install the server with make setup, or name another in TRITON_VENV")
    probe = subprocess.run([python, "-c", _PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        reason = (probe.stderr.strip() or f"status {probe.returncode}").splitlines()[-1]
        raise SetupError(f"{python} does not run ({reason}); install the server again with make setup")
    found: dict[str, str] = json.loads(probe.stdout)
    if found["package"] is None:
        raise SetupError(f"{venv} lacks the package nvidia-pytriton; install it again with make setup")
    return found


def _place_stub(server: Path, version: str) -> None:
    """The wheel keeps one stub for each Python version; the backend looks for one beside its library."""
    source = server / "python_backend_stubs" / version / STUB_NAME
    target = server / "backends" / "python" / STUB_NAME
    if not source.exists():
        versions = ", ".join(sorted(path.name for path in source.parent.parent.iterdir()))
        raise SetupError(f"the server has no Python backend for Python {version}; make .venv-triton with {versions}")
    if not target.exists() or not filecmp.cmp(source, target, shallow=False):
        with replacing(target) as temporary:
            shutil.copy2(source, temporary)


def _check_stub(installation: Installation, version: str) -> None:
    """Start the stub itself: without arguments it only asks for some, unless the dynamic loader complains first."""
    stub = installation.backends / "python" / STUB_NAME
    started = subprocess.run([stub], env=installation.environment, capture_output=True, text=True, check=False)
    if started.returncode == 127:
        reason = started.stderr.strip().rpartition("error while loading shared libraries: ")[2]
        raise SetupError(
            f"the server's Python backend cannot start: {reason}; install it, on Debian with apt-get install "
            f"libpython{version}"
        )


def _ending_with_its_parent() -> list[str]:
    """A prefix of the command, where util-linux is installed: without, a kill -9 of ours leaves the server behind."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
