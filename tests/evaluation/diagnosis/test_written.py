"""What is drawn and written of a diagnosis: every picture that the labels allow, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contract.samples import IMAGES_NAME, Samples, load_samples
from contract.spec import EMOTIONS, Predictions
from evaluation.diagnosis.contact_sheet import write_contact_sheet
from evaluation.diagnosis.written import write_diagnosis
from evaluation.metrics import score
from evaluation.plots import plot_age_groups
from tests.datasets import WriteDataset

NAN = float("nan")
PICTURES = {"calibration", "age_error", "confusion", "subgroups", "worst_age", "worst_gender", "worst_emotion"}


@pytest.fixture
def samples(write_dataset: WriteDataset) -> Samples:
    """Faces of a flat colour each."""
    manifest = write_dataset(*["holdout"] * 40)
    colours = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3), dtype=np.uint8)
    np.save(manifest.with_name(IMAGES_NAME), np.tile(colours, (1, 128, 128, 1)))
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


def test_every_picture_is_shown_or_linked_in_the_text(samples: Samples, tmp_path: Path) -> None:
    write_diagnosis({"any": (answers_for(samples), samples)}, tmp_path, title="Title")
    assert stems(tmp_path) == PICTURES
    linked = re.findall(r"\]\(([^)]*)\)", (tmp_path / "diagnosis.md").read_text())
    assert sorted(linked) == sorted(f"{stem}.png" for stem in PICTURES)


@pytest.mark.parametrize(
    ("missing", "absent", "present"),
    [
        (("age", "gender"), ("Error by age", "Subgroups", "| gender |"), ("| emotion |",)),
        (EMOTIONS, ("| emotion |", "emotion accuracy (%)"), ("Error by age", "Subgroups", "| gender |")),
    ],
    ids=["only emotion", "no emotion"],
)
def test_what_a_dataset_has_no_labels_for_is_left_out(
    samples: Samples, tmp_path: Path, missing: tuple[str, ...], absent: tuple[str, ...], present: tuple[str, ...]
) -> None:
    lacking = without(samples, *missing)
    write_diagnosis({"any": (answers_for(lacking), lacking)}, tmp_path / "diagnosis", title="Title")
    text = (tmp_path / "diagnosis" / "diagnosis.md").read_text()
    assert text.startswith("# Title\n")
    assert "nan" not in text
    assert not [words for words in absent if words in text]
    assert all(words in text for words in present)
    names = {path.name for path in (tmp_path / "diagnosis").iterdir()}
    assert ("confusion_emotion.csv" in names) == ("age" in missing)
    assert ("age_error.csv" in names) == ("age" not in missing)


def test_answers_are_written_digit_for_digit_with_ids_as_they_are(samples: Samples, tmp_path: Path) -> None:
    answers, ids = answers_for(samples), [f"{number:03}" for number in range(len(samples) - 1)] + ["1e5"]
    renamed = Samples(samples.folder, samples.table.assign(id=ids), samples.packed, samples.rows)
    write_diagnosis({"any": (answers, renamed)}, tmp_path, title="Title")
    read = pd.read_csv(
        tmp_path / "answers.csv", dtype=dict.fromkeys(("age", "gender", *EMOTIONS), np.float32) | {"id": str}
    )
    assert read["id"].tolist() == ids
    np.testing.assert_array_equal(read["age"], answers.age)
    np.testing.assert_array_equal(read["gender"], answers.gender)
    np.testing.assert_array_equal(read[list(EMOTIONS)], answers.emotion)


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
