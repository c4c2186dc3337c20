"""Two ranks that torchrun starts, on CPU with gloo, beside one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from contract.samples import IMAGES_NAME, read_manifest, write_manifest
from contract.spec import EMOTIONS
from training.config import SettingsError, TrainConfig
from training.loop.state import STATE_NAME
from training.loop.trainer import Trainer
from training.network.distributed import Ranks

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("ranks_program.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="module")
def manifests(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Faces with all labels, and as many with a gender only: what a rank's part of a batch knows differs."""
    folder = tmp_path_factory.mktemp("gender_only")
    table = read_manifest(manifest)
    table[["age", *EMOTIONS]] = np.nan
    write_manifest(table, folder / "manifest.csv")
    (folder / IMAGES_NAME).symlink_to(manifest.with_name(IMAGES_NAME))
    return [str(manifest), str(folder / "manifest.csv")]


def with_an_infinite_age(manifest: Path, folder: Path) -> str:
    folder.mkdir()
    table = read_manifest(manifest)
    table.loc[table["id"] == "00007", "age"] = np.inf
    write_manifest(table, folder / "manifest.csv")
    (folder / IMAGES_NAME).symlink_to(manifest.with_name(IMAGES_NAME))
    return str(folder / "manifest.csv")


def mean_gradient(run: Path) -> torch.Tensor:
    state = torch.load(run / STATE_NAME, weights_only=True)["optimizer"]["state"]
    return torch.cat([state[i]["exp_avg"].flatten() for i in sorted(state)])


@pytest.fixture(scope="module")
def runs(manifests: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The losses of every batch: of one rank, of two, and of runs that either began and the other went on with."""
    folder = tmp_path_factory.mktemp("ranks")
    infinite = with_an_infinite_age(Path(manifests[0]), folder / "infinite")

    def task(name: str, stop_after: int | None = None) -> dict[str, object]:
        return {"manifest": manifests, "out": str(folder / name), "stop_after": stop_after}

    def losses_of(command: list[str], **tasks: dict[str, object]) -> dict[str, list[float]]:
        done = subprocess.run(
            [*command, str(PROGRAM), json.dumps(list(tasks.values()))],
            env=ENVIRONMENT, cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {name: json.loads(Path(str(task["out"]), "result_0.json").read_text()) for name, task in tasks.items()}

    broken = {"manifest": [infinite], "out": str(folder / "broken")}
    alone = [sys.executable]
    began = losses_of(alone, one=task("one"), one_stopped=task("one_then_two", 4))
    both = losses_of(TORCHRUN, two_stopped=task("two_then_one", 8), two_going_on=task("one_then_two"), broken=broken)
    losses = began | both | losses_of(alone, one_going_on=task("two_then_one"))
    losses["folder"] = folder
    return losses


def test_two_ranks_lose_what_one_does_with_the_same_batches(runs: dict[str, list[float]]) -> None:
    """Augmentation, missing labels, clipping and the optimiser have to agree for this."""
    assert len(runs["one"]) == 12
    assert len(runs["two_stopped"]) == 8
    assert runs["two_stopped"][0] == pytest.approx(runs["one"][0], rel=1e-5)
    assert runs["two_stopped"] == pytest.approx(runs["one"][:8], rel=1e-3)
    assert np.std(runs["one"]) > 0.01 * np.mean(runs["one"])  # so other batches would show


def test_a_run_goes_on_inside_an_epoch_with_another_number_of_ranks(runs: dict[str, list[float]]) -> None:
    assert runs["one_stopped"] + runs["two_going_on"] == pytest.approx(runs["one"], rel=1e-3)
    assert runs["two_stopped"] + runs["one_going_on"] == pytest.approx(runs["one"], rel=1e-3)


def test_what_they_measure_is_the_same(runs: dict[str, list[float]]) -> None:
    folder = Path(str(runs["folder"]))
    expected = pd.read_csv(folder / "one" / "history.csv").filter(regex="train_|selection_")
    for name in ("one_then_two", "two_then_one"):
        history = pd.read_csv(folder / name / "history.csv").filter(regex="train_|selection_")
        pd.testing.assert_frame_equal(history, expected, rtol=2e-3, atol=1e-6)


def test_their_gradients_are_the_same(runs: dict[str, list[float]]) -> None:
    """As Adam's mean of them, clipped."""
    folder = Path(str(runs["folder"]))
    expected = mean_gradient(folder / "one")
    for name in ("one_then_two", "two_then_one"):
        assert (mean_gradient(folder / name) - expected).norm() < 0.02 * expected.norm()


def test_a_loss_that_is_not_finite_on_one_rank_ends_both_with_the_names_of_the_batchs_faces(
    runs: dict[str, list[float]],
) -> None:
    messages = [json.loads((Path(str(runs["folder"])) / "broken" / f"result_{r}.json").read_text()) for r in (0, 1)]
    assert messages[0] == messages[1]
    assert "infinite/00007" in messages[0]


def test_ctrl_c_stops_both_ranks_which_save_once_and_say_so_once(manifest: Path, tmp_path: Path) -> None:
    command = [*TORCHRUN, "-m", "training.train", "--manifest", str(manifest), "--out", str(tmp_path), "--resolution",
               "128", "--epochs", "50", "--batch-size", "16", "--device", "cpu", "--save-every-s", "0"]  # fmt: skip
    with subprocess.Popen(
        command, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as torchrun:
        assert torchrun.stderr is not None
        shown = b""
        while b" 1/3 " not in shown:
            piece = os.read(torchrun.stderr.fileno(), 4096)
            assert piece, f"it ended before it could be interrupted: {shown.decode()}"
            shown += piece
        torchrun.send_signal(signal.SIGINT)
        printed, rest = torchrun.communicate(timeout=60)
    assert torchrun.returncode != 0
    assert (shown + rest).count(b"the same command continues from here") == 1
    assert printed.count(b"2 ranks") == 1
    assert torch.load(tmp_path / STATE_NAME, weights_only=True)["progress"]["batch"] >= 1


def test_a_batch_that_cannot_be_shared_equally_is_refused(manifest: Path, tmp_path: Path) -> None:
    config = TrainConfig(manifest=(manifest,), out=tmp_path, batch_size=16, device="cpu")
    with pytest.raises(SettingsError, match=r"16 faces.*3 ranks"):
        Trainer(config, Ranks(0, 3))


def test_the_parts_of_all_ranks_are_the_whole() -> None:
    for length in (0, 1, 2, 16, 17):
        covered = [i for rank in range(3) for i in range(length)[Ranks(rank, 3).share(length)]]
        assert covered == list(range(length))
