"""The one evaluation as a program: a model that answers batch by batch or in a stream, on one dataset or several."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contract.samples import IMAGES_NAME, MANIFEST_NAME, ManifestError, load_samples, read_manifest, write_manifest
from contract.spec import Images, Predictions, check_images
from evaluation.metrics import score
from evaluation.run import EvaluationError, EvaluationOptions, batchwise, dataset_names, evaluate, run
from tests.datasets import WriteDataset


def as_labelled(images: Images) -> Predictions:
    """A model for the dataset of tests/datasets.py: 1 year out, right on gender, and says fear to everything."""
    check_images(images)
    grey = images[:, 5, 7, 1].astype(np.float32)
    return Predictions(grey + 1, grey % 2, np.tile(np.eye(8, dtype=np.float32)[3], (len(images), 1)))


def all_ahead(batches: Iterable[Images]) -> Iterator[Predictions]:
    """Answers in order, having taken all batches first, as a client with many requests in flight."""
    return (as_labelled(batch) for batch in list(batches))


@pytest.fixture
def manifest(write_dataset: WriteDataset) -> Path:
    return write_dataset(*(["holdout", "train"] * 10))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_evaluation_is_the_score_of_all_batches_together(manifest: Path, batch_size: int) -> None:
    samples = load_samples(manifest)
    together = Predictions.concatenate([as_labelled(batch) for batch in samples.image_batches(7)])
    found = evaluate(batchwise(as_labelled), samples, batch_size=batch_size)
    assert found.report == score(together, samples.labels)
    overall = found.report.overall
    assert (overall.samples, overall.age_mae_years.value, overall.gender_accuracy.value) == (10, 1.0, 1.0)


def test_a_stream_that_answers_in_order_is_evaluated_alike(manifest: Path) -> None:
    samples = load_samples(manifest)
    ahead, in_turn = (evaluate(predict, samples, batch_size=2) for predict in (all_ahead, batchwise(as_labelled)))
    assert ahead.report == in_turn.report


def test_a_model_that_loses_faces_is_found_out(manifest: Path) -> None:
    with pytest.raises(ValueError, match="got 4 predictions for 10 labelled faces"):
        evaluate(batchwise(lambda images: as_labelled(images[:4])), load_samples(manifest))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_overflows_is_an_error_and_not_a_better_score(manifest: Path, value: float) -> None:
    def overflows(images: Images) -> Predictions:
        answers = as_labelled(images)
        answers.age[answers.age > 15] = value
        return answers

    with pytest.raises(EvaluationError, match="2 of 10 answers of half are not finite"):
        evaluate(batchwise(overflows), load_samples(manifest), name="half")


def test_one_dataset_is_printed_and_written_under_the_names_given(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = EvaluationOptions(manifest=(manifest,), out=tmp_path / "table.csv", diagnosis=tmp_path / "where")
    [found] = run(batchwise(as_labelled), options, title="grey.onnx").values()
    printed = capsys.readouterr().out
    assert f"grey.onnx on {tmp_path.name}, 10 test faces, protocol holdout\n\n{found.report.to_markdown()}" in printed
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), found.report.to_frame())
    text = (tmp_path / "where" / "diagnosis.md").read_text()
    assert text.startswith("# Diagnosis of grey.onnx, test faces, protocol holdout\n")
    assert (tmp_path / "where" / "calibration.png").exists()


def test_several_datasets_have_a_table_each_with_the_name_in_the_file_name(manifest: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / MANIFEST_NAME
    write_manifest(read_manifest(manifest).assign(split="holdout"), other)
    shutil.copyfile(manifest.with_name(IMAGES_NAME), other.with_name(IMAGES_NAME))
    options = EvaluationOptions(manifest=(manifest, other), out=tmp_path / "table.csv")
    run(batchwise(as_labelled), options, title="grey.onnx")
    samples = {name: pd.read_csv(tmp_path / f"table_{name}.csv")["samples"] for name in (tmp_path.name, "other")}
    assert [counts.iloc[-1] for counts in samples.values()] == [10, 20]


def test_a_manifest_that_is_missing_is_told_before_anything_is_predicted(manifest: Path) -> None:
    def never(_: Iterable[Images]) -> Iterator[Predictions]:
        raise AssertionError("predicted all the same")

    with pytest.raises(ManifestError, match="does not exist"):
        run(never, EvaluationOptions(manifest=(manifest, manifest.with_name("absent.csv"))), title="grey.onnx")


def test_a_batch_of_nothing_is_refused(manifest: Path) -> None:
    with pytest.raises(EvaluationError, match="--batch-size must be 1 or more, got 0"):
        run(batchwise(as_labelled), EvaluationOptions(manifest=(manifest,), batch_size=0), title="grey.onnx")


def test_datasets_in_folders_of_one_name_are_told_apart() -> None:
    manifests = [Path(folder) / MANIFEST_NAME for folder in ("a/faces", "b/faces", "b/others")]
    assert dataset_names(manifests) == ["faces", "faces-2", "others"]
