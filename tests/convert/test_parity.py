import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tyro

from contract.samples import Labels, load_samples
from contract.spec import Predictions
from convert.parity import ParityConfig, compare, contenders, main
from convert.runtimes import ModelFileError, RuntimeUnavailableError
from evaluation.agreement import Tolerances, difference_table, excesses
from tests.convert.conftest import Models
from tests.convert.test_runtimes import needs_no_tensorrt


def predictions(age: list[float], gender: list[float]) -> Predictions:
    emotion = np.tile(np.eye(8, dtype=np.float32)[0], (len(age), 1))
    return Predictions(np.array(age, np.float32), np.array(gender, np.float32), emotion)


LABELS = Labels(np.float32([5, 25, 27]), np.float32([0, 1, 1]), np.eye(8, dtype=np.float32)[:3])
REFERENCE = predictions([5, 25, 25], [0.1, 0.9, 0.51])


def test_differences_are_taken_per_head_and_age_group() -> None:
    table = difference_table(predictions([6, 25, 27], [0.1, 0.9, 0.49]), REFERENCE, LABELS).set_index("group")
    assert list(table.index) == ["0-9", "20-29", "all"]
    assert table["age_years_max"].tolist() == pytest.approx([1, 2, 2])
    assert table["age_years_mean"].tolist() == pytest.approx([1, 1, 1])
    assert table.loc["20-29", "gender_probability_max"] == pytest.approx(0.02)
    assert table.loc["0-9", "age_mae_years_change"] == pytest.approx(1)
    assert table.loc["20-29", "age_mae_years_change"] == pytest.approx(-1)
    assert table.loc["20-29", "gender_accuracy_change"] == pytest.approx(-0.5)  # 0.51 -> 0.49 turned one face


def test_a_face_without_an_age_counts_in_the_whole_alone() -> None:
    labels = dataclasses.replace(LABELS, age=np.float32([5, np.nan, 27]))
    table = difference_table(predictions([5, 35, 25], [0.1, 0.9, 0.51]), REFERENCE, labels).set_index("group")
    assert table.loc["20-29", "age_years_max"] == 0
    assert table.loc["all", "age_years_max"] == 10


@pytest.mark.parametrize(
    ("age", "gender", "expected"),
    [
        ([5.4, 25, 25], [0.1, 0.9, 0.51], []),
        ([5.6, 25, 25], [0.1, 0.9, 0.51], ["age_years"]),
        ([5, 25, 25], [0.1, 0.7, 0.51], ["gender_probability"]),
    ],
)
def test_each_head_has_its_own_tolerance(age: list[float], gender: list[float], expected: list[str]) -> None:
    table = difference_table(predictions(age, gender), REFERENCE, LABELS)
    assert [line.split()[0] for line in excesses(table, Tolerances(0.5, 0.1, 0.1))] == expected


def test_all_runtimes_agree_with_pytorch_and_half_precision_differs_a_little(models: Models, faces: Path) -> None:
    untrained = Tolerances(1, 0.1, 0.1)
    config = ParityConfig(faces, models.checkpoint, models.onnx, models.fp16_onnx, reduced=untrained)
    table, failures = compare(config, load_samples(faces))
    assert failures == []
    largest = table[table["group"] == "all"].set_index("runtime")["age_years_max"]
    assert list(largest.index) == ["onnx fp32", "onnx fp16", "openvino fp32", "openvino fp16"]
    assert 0 < largest["onnx fp32"] < 0.01 < largest["onnx fp16"] < 1


def test_the_program_fails_past_a_tolerance_and_says_of_what(models: Models, faces: Path, tmp_path: Path) -> None:
    strict = Tolerances(1e-9, 1, 1)
    config = ParityConfig(faces, models.checkpoint, models.onnx, runtimes=("torch", "onnx"), exact=strict)
    with pytest.raises(SystemExit, match=r"onnx fp32: age_years differs by up to \S+, tolerance 1e-09"):
        main(dataclasses.replace(config, out=tmp_path / "parity.csv"))
    assert set(pd.read_csv(tmp_path / "parity.csv")["reference"]) == {"torch fp32"}


def test_runtimes_are_named_with_commas() -> None:
    arguments = ["--manifest", "m.csv", "--runtimes", "onnx,torch"]
    assert tyro.cli(ParityConfig, args=arguments).runtimes == ("torch", "onnx")  # the reference comes first
    with pytest.raises(SystemExit):
        tyro.cli(ParityConfig, args=["--manifest", "m.csv", "--runtimes", "caffe"], console_outputs=False)


def test_a_runtime_asked_for_without_a_model_is_an_error(faces: Path, models: Models) -> None:
    with pytest.raises(ModelFileError, match="no model was given for openvino"):
        contenders(ParityConfig(faces, models.checkpoint, runtimes=("torch", "openvino")))


def test_one_model_alone_is_nothing_to_compare(models: Models, faces: Path) -> None:
    with pytest.raises(ModelFileError, match="nothing to compare"):
        compare(ParityConfig(faces, models.checkpoint), load_samples(faces))


@needs_no_tensorrt
def test_a_missing_runtime_is_skipped_only_unless_it_was_asked_for(
    models: Models, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    profile = {"min": 1, "opt": 8, "max": 64}
    names = ("tensorrt_version", "gpu_name", "compute_capability", "onnx_sha256", "hardware_compatibility", "built_at")
    manifest = dict.fromkeys(names, "") | {"profile": profile, "precision": "fp16", "version_compatible": False}
    plan.with_name("model.plan.json").write_text(
        json.dumps(manifest | {"layer_precisions": {}, "convolution_precisions": {}})
    )
    config = ParityConfig(faces, models.checkpoint, models.onnx, plan=plan)
    table, _ = compare(config, load_samples(faces))
    assert "skipped tensorrt fp16: runtime 'tensorrt' needs 'tensorrt'" in capsys.readouterr().out
    assert set(table["runtime"]) == {"onnx fp32", "openvino fp32"}
    with pytest.raises(RuntimeUnavailableError, match="tensorrt"):
        compare(dataclasses.replace(config, runtimes=("torch", "tensorrt")), load_samples(faces))
