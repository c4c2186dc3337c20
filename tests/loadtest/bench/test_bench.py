"""The bench on a tiny budget of time, with the real engine and the real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contract.spec import MODEL_NAME
from loadtest.bench.__main__ import BenchConfig, main
from loadtest.bench.conditions import describe_model
from loadtest.bench.report import goal_table, ladder_table
from loadtest.bench.rows import ALONE, BENCHMARK_APP, GRPC, IN_PROCESS, LADDER, MANY, OPEN_LOOP, START, Row
from loadtest.table import ConditionsError
from serving.installation import DEFAULT_VENV


@pytest.fixture(scope="module")
def config(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchConfig:
    if not DEFAULT_VENV.exists():
        pytest.skip("the Triton server is not installed; run make setup")
    model = repository / MODEL_NAME / "1" / "model.onnx"
    return BenchConfig(model, tmp_path_factory.mktemp("bench"), repository=repository, rounds=1, seconds=0.6)


@pytest.fixture(scope="module")
def measured(config: BenchConfig) -> pd.DataFrame:
    main(config)
    return pd.read_csv(config.out / "rounds.csv", comment="#")


@pytest.mark.slow
def test_every_rung_is_measured_alone_and_with_many_in_flight(measured: pd.DataFrame) -> None:
    for what in LADDER:
        rows = measured[measured.what == what]
        assert set(rows.in_flight) == ({MANY} if what == BENCHMARK_APP else {ALONE, MANY})
        assert (rows.images_per_s > 0).all()
        assert (rows.errors == 0).all()
    served = measured[measured.what == GRPC]
    assert (served.p50_ms <= served.p99_ms).all()
    assert (served.server_cpu_ms > served.client_cpu_ms).all()
    assert set(measured[measured.what == OPEN_LOOP].errors) == {0}
    assert 0 < measured[measured.what == START].seconds.item() < 60


@pytest.mark.slow
def test_the_report_has_goals_ladder_conditions_and_picture(config: BenchConfig, measured: pd.DataFrame) -> None:
    assert len(measured)
    report = (config.out / "report.md").read_text()
    for wanted in ("network resolution 128", "sha256", "FP32: served throughput / benchmark_app", *LADDER):
        assert wanted in report
    assert "INT8" not in report
    assert (config.out / "ladder.png").stat().st_size > 10_000


@pytest.mark.slow
def test_rounds_that_were_measured_are_not_measured_again(config: BenchConfig, measured: pd.DataFrame) -> None:
    main(config)
    pd.testing.assert_frame_equal(pd.read_csv(config.out / "rounds.csv", comment="#"), measured)
    with pytest.raises(ConditionsError, match=r"other conditions.*--out.*\nmeasured: interleaved"):
        main(replace(config, seconds=0.1))


def test_a_model_is_described_by_its_resolution_and_hash(repository: Path) -> None:
    assert "network resolution 128, " in describe_model(repository / MODEL_NAME / "1" / "model.onnx")


def rows(number: int, precision: str, *, engine: float, served: float) -> list[Row]:
    common = {"precision": precision, "round": number}
    return [
        Row(BENCHMARK_APP, MANY, engine, **common),
        Row(BENCHMARK_APP, MANY, engine * 1.2, **common),  # after its server; the machine grew faster
        Row(IN_PROCESS, ALONE, 1e3 / 10, 10.0, 11.0, **common),
        Row(GRPC, MANY, served, 90.0, 100.0, **common),
        Row(GRPC, ALONE, 90.0, 12.0, 14.0, **common),
        Row(OPEN_LOOP, 0, 80.0, 20.0, 70.0, 1, **common),
        Row(START, seconds=2.0, **common),
    ]


def test_goals_are_medians_of_ratios_within_a_round() -> None:
    ratios = (0.9, 1.0, 0.5)
    parts = [rows(n, "FP32", engine=100.0 * (n + 1), served=110.0 * (n + 1) * r) for n, r in enumerate(ratios)]
    table = goal_table(pd.DataFrame([row for part in parts for row in part])).set_index("goal")
    found = table.loc["FP32: served throughput / benchmark_app"]
    assert found.measured == pytest.approx(0.9)
    assert (found.lowest, found.highest) == (pytest.approx(0.5), pytest.approx(1.0))
    assert found.verdict == "missed by 5%"
    assert table.loc["FP32: served p50 alone / in-process p50"].measured == pytest.approx(1.2)
    assert table.loc["FP32: open loop at 80%, p99 / p50"].verdict == "missed by 17%"
    assert table.loc["FP32: start to first answer, s"].verdict == "reached"


def test_int8_is_compared_with_fp32_of_the_same_round() -> None:
    parts = [*rows(1, "FP32", engine=100.0, served=100.0), *rows(1, "INT8", engine=400.0, served=330.0)]
    table = goal_table(pd.DataFrame(parts)).set_index("goal")
    assert table.loc["served throughput INT8 / FP32"].measured == pytest.approx(3.3)
    ladder = ladder_table(pd.DataFrame(parts)).set_index(["precision", "what", "in_flight"])
    assert ladder.loc[("INT8", GRPC, MANY), "of_engine"] == pytest.approx(0.75)
    assert np.isnan(ladder.loc[("INT8", BENCHMARK_APP, MANY), "p50_ms"])
