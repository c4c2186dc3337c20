import importlib.util
from pathlib import Path

import numpy as np
import pytest

from contract.samples import load_samples
from contract.spec import MAX_BATCH_SIZE
from convert.errors import ModelFileError, RuntimeUnavailableError
from convert.evaluate import EvaluateConfig, main
from convert.runtimes import load, runtime_for
from evaluation.run import batchwise, evaluate
from tests.convert.conftest import Models

needs_no_tensorrt = pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_runtime_answers_as_pytorch(models: Models, faces: Path, runtime: str, count: int) -> None:
    images = next(load_samples(faces).image_batches(count))
    found, expected = load(models.onnx, runtime)(images), load(models.checkpoint, "torch")(images)
    np.testing.assert_allclose(found.age, expected.age, atol=0.01)
    np.testing.assert_allclose(found.gender, expected.gender, atol=1e-4)
    np.testing.assert_allclose(found.emotion, expected.emotion, atol=1e-4)
    assert len(np.unique(found.age.round(1))) == count  # the comparison is of something


@pytest.mark.parametrize("runtime", ["torch", "onnx", "openvino"])
def test_answers_do_not_change_when_the_next_batch_is_computed(models: Models, faces: Path, runtime: str) -> None:
    predict = load(models.checkpoint if runtime == "torch" else models.onnx, runtime)
    first, second = list(load_samples(faces).image_batches(4))[:2]
    answer = predict(first)
    ages = answer.age.copy()
    predict(second)
    np.testing.assert_array_equal(answer.age, ages)


@pytest.mark.parametrize("runtime", ["torch", "onnx", "openvino"])
def test_a_file_that_is_no_model_is_named_together_with_the_runtime(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=rf"broken.onnx cannot be used with runtime '{runtime}'"):
        load(path, runtime)


def test_a_missing_file_is_answered_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="make engine"):
        load(tmp_path / "model.plan", "tensorrt")


@needs_no_tensorrt
def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"plan")
    with pytest.raises(RuntimeUnavailableError, match="needs 'tensorrt', which is not installed"):
        load(tmp_path / "model.plan", "tensorrt")


def test_images_outside_the_contract_are_refused(models: Models) -> None:
    with pytest.raises(ValueError, match="expects images uint8"):
        load(models.onnx, "onnx")(np.zeros((1, 224, 224, 3), np.uint8))


def test_the_suffix_says_which_runtime() -> None:
    assert [runtime_for(Path(name)) for name in ("a.safetensors", "a.onnx", "a.plan")] == ["torch", "onnx", "tensorrt"]
    with pytest.raises(ModelFileError, match="--runtime"):
        runtime_for(Path("a.pt"))


def test_the_report_does_not_depend_on_the_batch_size(models: Models, faces: Path) -> None:
    predict, samples = load(models.onnx, "onnx"), load_samples(faces)
    one, many = (evaluate(batchwise(predict), samples, batch_size=size).report for size in (7, 24))
    assert one.overall.age_mae_years.value == pytest.approx(many.overall.age_mae_years.value, abs=1e-4)
    assert one.overall.samples == many.overall.samples == 24


def test_evaluate_prints_the_table_and_writes_it(
    models: Models, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(EvaluateConfig(model=models.onnx, manifest=(faces,), runtime="openvino", out=tmp_path / "report.csv"))
    assert "| 0-9 | 12 |" in capsys.readouterr().out
    assert (tmp_path / "report.csv").read_text().count("\n") > 2


def test_evaluate_draws_the_diagnosis_of_any_runtime(models: Models, faces: Path, tmp_path: Path) -> None:
    main(EvaluateConfig(model=models.onnx, manifest=(faces,), diagnosis=tmp_path / "diagnosis"))
    text = (tmp_path / "diagnosis" / "diagnosis.md").read_text()
    assert "model.onnx in onnx, test faces" in text.splitlines()[0]
    assert "![Calibration](calibration.png)" in text
    assert (tmp_path / "diagnosis" / "worst_age.png").exists()


def test_a_batch_that_no_engine_takes_is_refused(models: Models, faces: Path) -> None:
    with pytest.raises(ModelFileError, match="batch-size"):
        main(EvaluateConfig(model=models.onnx, manifest=(faces,), batch_size=MAX_BATCH_SIZE + 1))
