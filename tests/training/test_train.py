import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from contract.samples import read_manifest, write_manifest
from training.batches.augmentation import Augmentation
from training.config import SettingsError, TrainConfig
from training.loop.interruption import NonFiniteLossError
from training.loop.state import STATE_NAME, StateError
from training.loop.trainer import Trainer
from training.network.checkpoint import BEST_NAME, CheckpointError, load_checkpoint
from training.network.distributed import DeviceError
from training.recipes import RECIPES, parse_config
from training.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(manifest: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        manifest=(manifest,),
        out=tmp_path / "run",
        resolution=128,
        epochs=2,
        batch_size=16,
        learning_rate=1e-3,
        device="cpu",
        plot_every=1,
    )


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / STATE_NAME, weights_only=True)["network"]


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights_of(a), weights_of(b)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def unbroken(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two epochs, for runs that are broken off to be compared with."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    train(
        TrainConfig(
            manifest=(manifest,),
            out=out,
            resolution=128,
            epochs=2,
            batch_size=16,
            learning_rate=1e-3,
            device="cpu",
            plot_every=1,
        )
    )
    return out


def test_a_run_leaves_everything_the_published_report_has(unbroken: Path) -> None:
    for name in ("training_history_epoch_1.png", "training_history_epoch_2.png", "training_history_final.png",
                 "metrics_by_age_group.png", "history.csv", "result_training.md", BEST_NAME):  # fmt: skip
        assert (unbroken / name).stat().st_size > 0
    report = (unbroken / "result_training.md").read_text()
    for section in (
        "Overall metrics",
        "Metrics by age group",
        "Key findings",
        "Model information",
        "Training configuration",
    ):
        assert f"## {section}" in report
    assert "training images included" in report
    assert "Beside the published figures" not in report  # these faces are not FFHQ
    assert list(pd.read_csv(unbroken / "history.csv")["epoch"]) == [1, 2]


def test_a_checkpoint_describes_itself(unbroken: Path) -> None:
    checkpoint = load_checkpoint(unbroken / BEST_NAME)
    assert checkpoint.resolution == 128
    assert checkpoint.config["learning_rate"] == 1e-3
    assert checkpoint.metrics["selection_loss"] > 0


def test_a_modern_run_broken_off_goes_on_to_the_same_bits(manifest: Path, tmp_path: Path) -> None:
    modern = dataclasses.replace(
        RECIPES["modern"],
        manifest=(manifest, manifest),
        repeat=(1, 0.5),
        resolution=128,
        first_resolutions=(64,),
        augmentation=Augmentation(zoom=0.25, shift=0.06, grey_probability=0.2, blur_probability=0.2),
        epochs=2,
        batch_size=16,
        dropout=0.5,
        device="cpu",
    )
    unbroken, broken = (Trainer(dataclasses.replace(modern, out=tmp_path / name)) for name in ("unbroken", "broken"))
    unbroken.run()
    broken._epoch()
    resumed = Trainer(broken.config)
    resumed.run()
    assert_same_weights(broken.config.out, unbroken.config.out)
    best, expected = (load_file(t.config.out / BEST_NAME) for t in (resumed, unbroken))
    assert all(torch.equal(best[name], expected[name]) for name in expected)
    assert pd.read_csv(broken.config.out / "history.csv")["resolution"].tolist() == [64, 128]


def test_what_is_still_to_come_may_be_planned_anew_but_not_what_was_done(config: TrainConfig) -> None:
    begun = dataclasses.replace(config, schedule="one_cycle", first_resolutions=(32, 32), epochs=3)
    Trainer(begun)._epoch()
    with pytest.raises(StateError, match="trained its epochs at 32"):
        Trainer(dataclasses.replace(begun, first_resolutions=())).run()
    trainer = Trainer(dataclasses.replace(begun, first_resolutions=(32,), epochs=2))
    trainer.run()
    assert [row["resolution"] for row in trainer.state.progress.history] == [32, 128]
    assert trainer.state.optimizer.param_groups[0]["lr"] == 0  # the new plan's end, not the old one's middle


@pytest.mark.parametrize("first", [(64, 64), (256,), (8,)])
def test_resolutions_that_do_not_fit_are_refused(config: TrainConfig, first: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="--first-resolutions"):
        dataclasses.replace(config, first_resolutions=first)


def test_dropout_is_a_share_of_the_published(config: TrainConfig) -> None:
    network = Trainer(dataclasses.replace(config, dropout=0.5)).state.network
    found = [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)]
    assert found == [0.25, 0.2, 0.15, 0.15]


def test_a_recipe_is_a_start_that_the_command_line_can_change() -> None:
    assert parse_config([]) == TrainConfig()
    chosen = parse_config(["--recipe", "modern", "--learning-rate", "5e-4"])
    assert chosen == dataclasses.replace(RECIPES["modern"], learning_rate=5e-4)


def start(config: TrainConfig) -> subprocess.Popen[bytes]:
    """The program itself, so that it can be killed and interrupted as a user does."""
    command = [sys.executable, "-m", "training.train", "--manifest", str(config.manifest[0]), "--out", str(config.out),
               "--resolution", "128", "--epochs", "2", "--batch-size", "16", "--learning-rate", "1e-3",
               "--device", "cpu", "--plot-every", "1"]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)


def test_killed_after_an_epoch_it_ends_with_the_weights_of_an_unbroken_run(unbroken: Path, config: TrainConfig) -> None:
    with start(config) as process:
        deadline = time.monotonic() + 120
        while not (config.out / "history.csv").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert torch.load(config.out / STATE_NAME, weights_only=True)["progress"]["epoch"] == 1
    Trainer(config).run()
    assert_same_weights(config.out, unbroken)
    best, expected = load_file(config.out / BEST_NAME), load_file(unbroken / BEST_NAME)
    assert all(torch.equal(best[name], expected[name]) for name in expected)


def test_stopped_inside_an_epoch_it_saves_and_ends_with_the_weights_of_an_unbroken_run(
    unbroken: Path, config: TrainConfig
) -> None:
    with start(config) as process:
        assert process.stderr is not None
        shown = b""
        while b" 1/3 " not in shown:  # the progress bar after the first of three batches
            piece = process.stderr.read(4096)
            assert piece, "it ended before it could be interrupted"
            shown += piece
        process.send_signal(signal.SIGINT)
        shown += process.communicate()[1]
    assert process.returncode == 130
    assert b"the same command continues from here" in shown
    progress = torch.load(config.out / STATE_NAME, weights_only=True)["progress"]
    assert progress["epoch"] == 0
    assert progress["batch"] in (1, 2, 3)
    Trainer(config).run()
    assert_same_weights(config.out, unbroken)
    ours, theirs = (
        pd.read_csv(run / "history.csv").filter(regex="train_|selection_") for run in (config.out, unbroken)
    )
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_finished_run_that_is_run_again_changes_nothing(unbroken: Path, config: TrainConfig) -> None:
    before = weights_of(unbroken)
    Trainer(dataclasses.replace(config, out=unbroken)).run()
    after = weights_of(unbroken)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_settings_in_the_same_folder_are_refused_by_name(unbroken: Path, config: TrainConfig) -> None:
    with pytest.raises(StateError, match=r"learning_rate 0.001 -> 0.002.*--restart"):
        Trainer(dataclasses.replace(config, out=unbroken, learning_rate=0.002)).run()


def test_a_broken_state_file_says_so(config: TrainConfig) -> None:
    config.out.mkdir()
    (config.out / STATE_NAME).write_bytes(b"not a state")
    with pytest.raises(StateError, match="--restart"):
        Trainer(config).run()


def test_a_broken_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "missing.safetensors")


def test_a_run_may_start_from_the_weights_of_another(unbroken: Path, config: TrainConfig, tmp_path: Path) -> None:
    best = load_checkpoint(unbroken / BEST_NAME).network.state_dict()
    begun = Trainer(dataclasses.replace(config, start_from=unbroken / BEST_NAME, quick_start=True)).state.network
    assert all(torch.equal(value, best[name]) for name, value in begun.state_dict().items())
    with pytest.raises(CheckpointError, match="missing"):
        train(dataclasses.replace(config, start_from=tmp_path / "missing.safetensors"))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_faces(config: TrainConfig, tmp_path: Path) -> None:
    table = read_manifest(config.manifest[0])
    table.loc[table["id"] == "00007", "age"] = np.inf
    write_manifest(table, tmp_path / "manifest.csv")
    (tmp_path / "images.npy").symlink_to(config.manifest[0].with_name("images.npy"))
    with pytest.raises(NonFiniteLossError, match="00007"):
        Trainer(dataclasses.replace(config, manifest=(tmp_path / "manifest.csv",))).run()
    assert not (config.out / STATE_NAME).exists()


def test_training_learns(config: TrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, epochs=6, quick_start=True))
    trainer.run()
    first, *_, last = trainer.state.progress.history
    assert last["train_loss"] < 0.9 * first["train_loss"]
    assert last["train_gender_loss"] < 0.7 * first["train_gender_loss"]


def test_it_stops_when_the_selection_loss_no_longer_improves(config: TrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, epochs=50, early_stopping_patience=1, learning_rate=1e-12))
    trainer.run()
    assert trainer.state.progress.epoch < 10


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": 1}, "2 or more"),
        ({"batch_size": 0}, "2 or more"),
        ({"epochs": 0}, "1 or more"),
        ({"resolution": 0}, "128 to 224"),
        ({"resolution": 1000}, "128 to 224"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(
    config: TrainConfig, change: dict[str, int], reason: str
) -> None:
    with pytest.raises(SettingsError, match=reason):
        dataclasses.replace(config, **change)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_named(config: TrainConfig) -> None:
    with pytest.raises(DeviceError, match="no GPU here"):
        train(dataclasses.replace(config, device="cuda"))
