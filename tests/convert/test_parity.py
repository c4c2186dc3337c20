import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import tyro

from contract.repository import write_engine_manifest
from contract.samples import load_samples
from convert.errors import ModelFileError, RuntimeUnavailableError
from convert.parity import ParityConfig, compare, contenders, main
from evaluation.limits import Limits
from tests.contract.test_repository import MANIFEST
from tests.convert.conftest import Models
from tests.convert.test_runtimes import needs_no_tensorrt


def test_all_runtimes_agree_with_pytorch_and_half_precision_differs_a_little(models: Models, faces: Path) -> None:
    untrained = Limits.of_answers(age_years=1, probability=0.1)
    config = ParityConfig(faces, models.checkpoint, models.onnx, models.fp16_onnx, fp16=untrained)
    table, failures = compare(config, load_samples(faces))
    assert failures == []
    largest = table[table["group"] == "all"].set_index("runtime")["age_years_max"]
    assert list(largest.index) == ["onnx fp32", "onnx fp16", "openvino fp32", "openvino fp16"]
    assert 0 < largest["onnx fp32"] < 0.01 < largest["onnx fp16"] < 1


def test_the_program_fails_past_a_limit_and_says_of_what(models: Models, faces: Path, tmp_path: Path) -> None:
    strict = Limits(age_years=1e-9)
    config = ParityConfig(faces, models.checkpoint, models.onnx, runtimes=("torch", "onnx"), fp32=strict)
    with pytest.raises(SystemExit, match=r"onnx fp32: age \(years\) differs by up to \S+, limit 1e-09"):
        main(dataclasses.replace(config, out=tmp_path / "parity.csv"))
    assert set(pd.read_csv(tmp_path / "parity.csv")["reference"]) == {"torch fp32"}


def test_the_reference_comes_first_however_runtimes_are_named(models: Models) -> None:
    files = ["--checkpoint", str(models.checkpoint), "--onnx", str(models.onnx)]
    config = tyro.cli(ParityConfig, args=["--manifest", "m.csv", *files, "--runtimes", "onnx", "torch"])
    assert [str(contender) for contender in contenders(config)] == ["torch fp32", "onnx fp32"]
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
    write_engine_manifest(dataclasses.replace(MANIFEST, precision="fp16"), plan)
    config = ParityConfig(faces, models.checkpoint, models.onnx, plan=plan)
    table, _ = compare(config, load_samples(faces))
    assert "skipped tensorrt fp16: runtime 'tensorrt' needs 'tensorrt'" in capsys.readouterr().out
    assert set(table["runtime"]) == {"onnx fp32", "openvino fp32"}
    with pytest.raises(RuntimeUnavailableError, match="tensorrt"):
        compare(dataclasses.replace(config, runtimes=("torch", "tensorrt")), load_samples(faces))
