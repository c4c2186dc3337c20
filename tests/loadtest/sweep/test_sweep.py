"""A whole sweep on real servers, stopped and continued; the grid it measures and the rows it keeps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from contract.spec import MODEL_NAME
from loadtest.faces import load_pictures
from loadtest.sweep.__main__ import _only_sweep_in, report, sweep
from loadtest.sweep.conditions import conditions_of
from loadtest.sweep.config import ConfigError, read_config, settings_of
from loadtest.sweep.grid import SweepConfig, estimate_s, in_rounds, points_of
from loadtest.sweep.rows import Rows, SweepError
from loadtest.table import ConditionsError
from serving.installation import DEFAULT_VENV

PROJECT = Path(__file__).resolve().parents[3]
BRIEF = ("--rounds", "1", "--in-flight", "1", "3", "--instances", "1", "--seconds", "0.4", "--warm-up-s", "0.1")


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """The repository where its configuration may be changed; its model stays where it is."""
    return Path(shutil.copytree(repository, tmp_path / "model_repository"))


def started(copy: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "loadtest.sweep", "--repository", str(copy), "--out", str(out), *BRIEF, *arguments]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rows_in(out: Path) -> pd.DataFrame:
    path = out / "rows.csv"
    return pd.read_csv(path, comment="#") if path.exists() else pd.DataFrame()


@pytest.mark.slow
@pytest.mark.skipif(not DEFAULT_VENV.exists(), reason="the Triton server is not installed; run make setup")
def test_a_sweep_that_was_killed_goes_on_where_it_was_and_prints_its_choice(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    unchanged = (copy / MODEL_NAME / "configs" / "cpu.pbtxt").read_text()
    killed = started(copy, out)
    deadline = time.monotonic() + 60
    while rows_in(out).empty and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=30)
    first = rows_in(out)
    assert 1 <= len(first) < 4

    process = started(copy, out)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert f"{4 - len(first)} of 4 measurements to make" in output
    rows = rows_in(out)
    pd.testing.assert_frame_equal(rows.head(len(first)), first)
    assert rows[["queue_delay_us", "in_flight"]].drop_duplicates().shape == (4, 2)
    assert (rows["images_per_s"] > 0).all()
    assert (rows["errors"] == 0).all()
    assert (out / "rows.csv").read_text().startswith("# hardware: ")
    assert {path.name for path in out.iterdir()} >= {"medians.csv", "sweep.png"}
    assert not (out / "model_repository").exists()

    before, chosen = output.rpartition("Chosen: own, ")[::2]
    assert before
    assert ("max_queue_delay_microseconds: 500" in chosen) == ("queue delay 500 us" in chosen.splitlines()[0])
    assert (copy / MODEL_NAME / "configs" / "cpu.pbtxt").read_text() == unchanged


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    """A sweep of two servers, whose model is nothing that could be loaded."""
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"no model")
    return SweepConfig(
        out=tmp_path / "sweep",
        repository=Path(shutil.copytree(PROJECT / "model_repository", tmp_path / "model_repository")),
        model=(f"fp32={model}",),
        in_flight=(1, 4),
        instances=(1,),
        rounds=1,
    )


def fill(config: SweepConfig, **changed: object) -> None:
    """All rows of the sweep as if they had been measured: a queue delay costs throughput, load brings some."""
    model_config = read_config(config.config_path)
    conditions = conditions_of(config, model_config, load_pictures("").description)
    rows = Rows(config.out / "rows.csv", conditions, tuple(settings_of(model_config).columns))
    for number, point in in_rounds(points_of(config, model_config), config.rounds):
        for load in config.in_flight:
            throughput = 100.0 + load - point.settings.queue_delay_us / 100
            measured = {
                "images_per_s": throughput,
                "p50_ms": 9.0,
                "p99_ms": 10.0 * load,
                "errors": 0,
                "measured_at": "now",
            }
            key = {"model": point.model.name, **point.settings.columns, "in_flight": load, "round": number}
            rows.add({**key, **measured, "model_sha256": point.model.sha256, **changed})


def test_with_all_rows_there_no_server_is_started(config: SweepConfig, capsys: pytest.CaptureFixture[str]) -> None:
    fill(config)
    text = report(config, sweep(config))
    assert "0 of 4 measurements to make, on 0 fresh servers" in capsys.readouterr().out
    assert "Chosen: fp32, 1 in flight, queue delay 0 us" in text
    assert f"101 images/s, p99 10 ms; with the present settings of {config.config_path} 101 images/s, p99 10 ms" in text


def test_rows_of_another_grid_are_kept_and_do_not_count(config: SweepConfig) -> None:
    fill(replace(config, in_flight=(1, 4, 16), rounds=2))
    assert set(sweep(config).table["in_flight"]) == {1, 4}
    assert set(sweep(config).table["rounds"]) == {1}
    assert len(rows_in(config.out)) == 12


@pytest.mark.parametrize("changed", [{"seconds": 9.0}, {"warm_up_s": 3.0}])
def test_rows_of_other_conditions_are_refused(config: SweepConfig, changed: dict[str, float]) -> None:
    fill(config)
    with pytest.raises(ConditionsError, match=r"rows.csv was measured under other conditions.*--out"):
        sweep(replace(config, **changed))


def test_another_program_in_the_repository_is_another_condition(config: SweepConfig) -> None:
    fill(config)
    with (config.repository / MODEL_NAME / "1" / "model.py").open("a") as program:
        program.write("# slower\n")
    with pytest.raises(ConditionsError, match=r"\nmodel: agegendernet, model.py .* \(there\), .* \(here\)"):
        sweep(config)


def test_another_model_of_the_same_name_is_refused(config: SweepConfig) -> None:
    fill(config)
    config.models[0].path.write_bytes(b"another model")
    with pytest.raises(SweepError, match="another model called fp32"):
        sweep(config)


def test_a_server_that_does_not_start_is_named_and_the_others_are_measured(config: SweepConfig) -> None:
    fill(replace(config, queue_delay_us=(0,)))
    with pytest.raises(SweepError, match=r"could not be measured.*\nfp32 \{'queue_delay_us': '500'"):
        sweep(config)
    assert len(rows_in(config.out)) == 2


def test_a_second_sweep_in_the_same_folder_is_refused(config: SweepConfig) -> None:
    fill(config)
    with _only_sweep_in(config.out), pytest.raises(SweepError, match="another sweep is running"):
        sweep(config)


def test_the_grid_has_every_combination_and_rounds_alternate(config: SweepConfig) -> None:
    axes = ("max_waiting_images=64,512",)
    points = points_of(replace(config, instances=(1, 2), parameter=axes), read_config(config.config_path))
    columns = [tuple(point.settings.columns.values()) for point in points]
    assert len(set(columns)) == 2 * 2 * 2
    order = [point for _, point in in_rounds(points, 2)]
    assert order == [*points, *reversed(points)]


def test_a_parameter_that_the_configuration_lacks_is_refused_with_those_it_has(config: SweepConfig) -> None:
    sweeping = replace(config, parameter=("max_waiting_image=64",))
    with pytest.raises(ConfigError, match=r"no parameter max_waiting_image; it has .*max_waiting_images"):
        sweep(sweeping)


@pytest.mark.parametrize(
    "changed", [{"in_flight": ()}, {"in_flight": (4, 4)}, {"instances": (0,)}, {"queue_delay_us": (-1,)}, {"rounds": 0}]
)
def test_axes_without_sense_are_refused(config: SweepConfig, changed: dict[str, object]) -> None:
    with pytest.raises(SweepError, match="--"):
        sweep(replace(config, **changed))


def test_the_default_sweep_of_two_precisions_takes_eight_minutes_at_most(config: SweepConfig) -> None:
    default = replace(SweepConfig(), model=("fp32=fp32.onnx", "int8=int8.onnx"))
    servers = default.rounds * len(points_of(default, read_config(config.config_path)))
    assert estimate_s(default, servers=servers, measurements=servers * len(default.in_flight)) <= 8 * 60


@pytest.mark.parametrize(
    "changed", [{"model": ("int8",)}, {"parameter": ("streams=",)}, {"parameter": ("streams=1,",)}]
)
def test_what_is_no_name_with_values_is_refused(config: SweepConfig, changed: dict[str, tuple[str]]) -> None:
    with pytest.raises(SweepError, match="is not NAME="):
        sweep(replace(config, **changed))


def test_what_cannot_be_swept_is_one_line_of_the_program() -> None:
    command = [sys.executable, "-m", "loadtest.sweep", "--parameter", "absent=1"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: model_repository/agegendernet/configs/cpu.pbtxt has no parameter absent; it has "
    )
    assert done.stderr.count("\n") == 1
