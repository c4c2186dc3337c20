"""The recipes of docs/clients.md, each run as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.spec import Images
from serving.server import TritonServer
from tests.clients.material import make_dataset
from tests.clients.tls import tls_in_front_of
from tests.photos import photo_with_faces

DOCS = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
RECIPES = re.findall(r"^## (\d+)\. .*?```(python|bash)\n(.*?)```", DOCS.read_text(), re.DOTALL | re.MULTILINE)


def test_there_are_eleven() -> None:
    assert [number for number, _, _ in RECIPES] == [str(n) for n in range(1, 12)]


@pytest.mark.parametrize(
    ("language", "code"), [recipe[1:] for recipe in RECIPES], ids=[number for number, _, _ in RECIPES]
)
def test_recipe(triton_server: TritonServer, folder: Path, certificates: Path, language: str, code: str) -> None:
    code = code.replace("grpc://127.0.0.1:8001", triton_server.grpc_url)
    code = code.replace("http://127.0.0.1:8000", triton_server.http_url)
    with tls_in_front_of(triton_server.grpc_url, certificates) as authority:
        done = run(language, code.replace("faces.example.org:8001", authority), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def run(language: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(DOCS.parents[1]), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-W", "error", "-c"]
    return subprocess.run(
        [*command, code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def folder(
    tmp_path: Path, files: list[Path], pictures: Images, certificates: Path, triton_server: TritonServer
) -> Path:
    """What the recipes expect where they are run."""
    shutil.copy(files[1], tmp_path / "face.jpg")
    photo_with_faces((640, 480), [(40, 60, 260), (420, 90, 160)]).save(tmp_path / "photo.jpg")
    (tmp_path / "faces").mkdir()
    shutil.copy(files[0], tmp_path / "faces" / "good.png")
    (tmp_path / "faces" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "key.txt").write_text(triton_server.headers["agegendernet-key"] + "\n")
    (tmp_path / "dataset").mkdir()
    make_dataset(tmp_path / "dataset", pictures)
    shutil.copytree(certificates, tmp_path, dirs_exist_ok=True)
    return tmp_path
