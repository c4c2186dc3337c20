"""The report of a run on one dataset and on several, and the evaluation program behind it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from contract.samples import IMAGES_NAME, MANIFEST_NAME, read_manifest, write_manifest
from contract.spec import EMOTIONS
from training.evaluate import EvaluateConfig, main
from training.loop.history import HISTORY_NAME
from training.network.checkpoint import BEST_NAME, Checkpoint, save_checkpoint
from training.network.model import AgeGenderNet
from training.report import write_report

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def datasets(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One with every label, one with only emotions, and one with ages and genders of its own races."""
    folder, table = tmp_path_factory.mktemp("datasets"), read_manifest(manifest)
    table["split"] = table["split"].replace("age_zero", "holdout")
    only_emotion = table.assign(age=np.nan, gender=np.nan)
    no_emotion = table.assign(**dict.fromkeys(EMOTIONS, np.nan), race=["a", "b"] * (len(table) // 2))
    manifests = [manifest]
    for name, rows in {"fer": only_emotion, "utk": no_emotion}.items():
        (folder / name).mkdir()
        write_manifest(rows, folder / name / MANIFEST_NAME)
        (folder / name / IMAGES_NAME).symlink_to(manifest.with_name(IMAGES_NAME))
        manifests.append(folder / name / MANIFEST_NAME)
    return manifests


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run as training leaves it, of a network that is not trained."""
    torch.manual_seed(0)
    config = {"manifest": ["a/manifest.csv", "b/manifest.csv"], "protocol": "holdout"}
    save_checkpoint(tmp_path / BEST_NAME, Checkpoint(AgeGenderNet(), 128, config, {"epoch": 1, "selection_loss": 2.0}))
    names = ("loss", "age_mae_years", "gender_loss", "emotion_loss", "gender_accuracy", "emotion_accuracy")
    row = {f"{part}_{name}": 1.0 for part in ("train", "selection") for name in names}
    history = {"epoch": 1, "resolution": 128, "learning_rate": 1e-3, "images_per_s": 50.0, "data_share": 0.01} | row
    pd.DataFrame([history]).to_csv(tmp_path / HISTORY_NAME, index=False)
    return tmp_path


def links_of(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]*)\)", text)


def test_one_dataset_keeps_the_plain_file_names_and_lacks_what_it_has_no_labels_for(
    run: Path, datasets: list[Path]
) -> None:
    text = write_report(run, [datasets[1]], device=CPU).read_text()  # only emotions
    assert [path.name for path in run.glob("metrics_*")] == ["metrics_holdout.csv"]
    assert "## Calibration, confusions and subgroups" in text
    assert "| manifest | a/manifest.csv, b/manifest.csv |" in text
    assert "age MAE (years) |" not in text.split("## Metrics by age group")[0]
    assert all((run / link).exists() for link in links_of(text))
    assert "nan" not in text


def test_several_datasets_have_files_and_sections_of_their_own(run: Path, datasets: list[Path]) -> None:
    text = write_report(run, datasets[:2], device=CPU).read_text()
    ffhq = datasets[0].parent.name
    assert {path.name for path in run.glob("metrics_*")} == {
        *(f"metrics_{ffhq}_{kind}" for kind in ("holdout.csv", "published.csv", "by_age_group.png")),
        "metrics_fer_holdout.csv",
    }
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "## Overall metrics by dataset",
        f"## {ffhq}",
        "## fer",
        "## Model information",
        "## Training configuration",
    ]
    assert all((run / link).exists() for link in links_of(text))
    assert "nan" not in text
    assert re.search(r"^\| fer \| 20 \| - \| - \| [\d.]+ \(", text, re.MULTILINE)


def test_evaluating_a_checkpoint_on_several_datasets_writes_a_table_and_a_diagnosis_of_each(
    run: Path, datasets: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        EvaluateConfig(
            checkpoint=run / BEST_NAME, manifest=tuple(datasets[1:]), out=run / "table.csv", diagnosis=run / "where"
        )
    )
    printed = capsys.readouterr().out
    assert "best.safetensors on fer, 20 test faces" in printed
    assert "| **all** | **20** | **-** | **-** |" in printed
    assert (run / "table_fer.csv").exists()
    assert pd.read_csv(run / "table_utk.csv")["samples"].iloc[-1] == 20
    assert (run / "where" / "subgroups_utk.png").exists()
    assert not (run / "where" / "subgroups_fer.png").exists()
    assert "| race |" in (run / "where" / "diagnosis.md").read_text()
