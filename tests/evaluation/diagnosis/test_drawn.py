"""What is drawn and written of a diagnosis: every picture that the labels allow, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.samples import Samples, load_samples
from contract.spec import EMOTIONS, Predictions
from evaluation.diagnosis.contact_sheet import write_contact_sheet
from evaluation.diagnosis.drawn import DiagnosisConfig, main, write_diagnosis
from evaluation.diagnosis.numbers import diagnose, write_tables
from evaluation.metrics import score
from evaluation.plots import plot_age_groups

NAN = float("nan")
PICTURES = {"calibration", "age_error", "confusion", "subgroups", "worst_age", "worst_gender", "worst_emotion"}


@pytest.fixture
def samples(manifest: Path) -> Samples:
    return load_samples(manifest)


def answers_for(samples: Samples, seed: int = 0) -> Predictions:
    """Mostly near the labels, where there are any."""
    rng, count, labels = np.random.default_rng(seed), len(samples), samples.labels
    age = np.nan_to_num(labels.age, nan=30) + rng.normal(0, 5, count)
    emotion = rng.dirichlet(np.ones(8), count)
    return Predictions(age.astype(np.float32), rng.random(count).astype(np.float32), emotion.astype(np.float32))


def without(samples: Samples, *columns: str) -> Samples:
    return Samples(samples.folder, samples.table.assign(**dict.fromkeys(columns, NAN)), samples.packed, samples.rows)


def stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.png")}


def test_several_datasets_have_their_names_in_the_files_and_their_own_sections(
    samples: Samples, tmp_path: Path
) -> None:
    only_emotion, no_emotion = without(samples, "age", "gender"), without(samples, *EMOTIONS)
    evaluated = {"a": (answers_for(only_emotion), only_emotion), "b": (answers_for(no_emotion), no_emotion)}
    write_diagnosis(evaluated, tmp_path, title="Title")
    assert stems(tmp_path) == {
        *("calibration_a", "confusion_a", "worst_emotion_a"),
        *("calibration_b", "age_error_b", "confusion_b", "subgroups_b", "worst_age_b", "worst_gender_b"),
    }
    text = (tmp_path / "diagnosis.md").read_text()
    assert [line for line in text.splitlines() if line.startswith(("# ", "## "))] == ["# Title", "## a", "## b"]
    assert "### Error by age" in text
    assert "nan" not in text


def test_answers_of_a_server_become_every_picture_and_a_text_that_shows_or_links_each(
    manifest: Path, samples: Samples, tmp_path: Path
) -> None:
    answers, out = answers_for(samples), tmp_path / "drawn"
    write_tables(diagnose(answers, samples), answers, samples, tmp_path)
    main(DiagnosisConfig(tmp_path / "answers.csv", manifest, out))
    assert stems(out) == PICTURES
    linked = re.findall(r"\]\(([^)]*)\)", (out / "diagnosis.md").read_text())
    assert sorted(linked) == sorted(f"{stem}.png" for stem in PICTURES)
    for name in ("subgroups.csv", "calibration.csv", "worst.csv"):
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_contact_sheet_shows_the_worst_faces_in_order(samples: Samples, tmp_path: Path) -> None:
    faces = samples.packed[samples.rows[:8]]
    out = write_contact_sheet(faces, [("one", "two")] * 8, "title", tmp_path / "sheet.png")
    with Image.open(out) as opened:
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    flat = np.all(np.abs(sheet - faces[6].mean((0, 1))) < 25, axis=2)
    rows, columns = np.nonzero(flat)
    assert rows.size > 10_000
    assert np.median(rows) > sheet.shape[0] / 2  # the seventh face opens the second row
    assert np.median(columns) < sheet.shape[1] / 6


def test_the_age_group_picture_leaves_out_what_has_no_labels(samples: Samples, tmp_path: Path) -> None:
    def height(*missing: str) -> int | None:
        lacking = without(samples, *missing)
        path = plot_age_groups(score(answers_for(lacking), lacking.labels), tmp_path / "groups.png", title="Title")
        if path is None:
            return None
        with Image.open(path) as picture:
            return picture.height

    assert height("age") is None
    whole, only_age = height(), height("gender", *EMOTIONS)
    assert whole is not None
    assert only_age is not None
    assert only_age < 0.6 * whole  # the age and the number of faces, side by side
