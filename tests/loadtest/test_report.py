"""From recorded requests to numbers, pictures and the page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clients import ModelStatistics
from loadtest.report import LATE_MS, warnings_of, write_report
from loadtest.users.measurement import Measurement, Request, Window, stages_between, summary, where_time_goes

CONDITIONS = {"load": "closed loop, 4 users", "model": "agegendernet version 1, python", "hardware": "2 cores"}
TENSOR, ENCODED = "gRPC tensor", "HTTP encoded"


def measurement(requests: list[Request], *, stop_s: float = 110.0) -> Measurement:
    before = ModelStatistics("agegendernet", "1", 100, 50, 0, 2.0, 10.0, 20.0)
    after = ModelStatistics("agegendernet", "1", 400, 150, 3, 4.0, 6.0, 30.0)
    return Measurement.of(requests, stages_between([before], [after]), Window(100.0, stop_s), CONDITIONS)


def request(due_s: float, latency_ms: float, *, name: str = TENSOR, error: str = "", lag_ms: float = 0.0) -> Request:
    return Request(name, due_s, lag_ms, latency_ms, error)


def test_percentiles_are_exact() -> None:
    requests = [request(100 + n / 1000, n + 0.123) for n in np.random.default_rng(0).permutation(1001)]
    [row] = summary(measurement(requests), objective_ms=500).to_dict("records")
    assert [row[f"p{p}_ms"] for p in (50, 90, 95, 99)] == pytest.approx([500.123, 900.123, 950.123, 990.123])
    assert row["max_ms"] == 1000.123


def test_the_warm_up_does_not_count() -> None:
    requests = [request(99.0, 900.0), *(request(100.0 + n, 10.0) for n in range(10))]
    [row] = summary(measurement(requests), objective_ms=100).to_dict("records")
    assert (row["count"], row["max_ms"]) == (10, 10.0)


def test_a_request_answered_after_the_end_counts_for_latency_and_not_for_throughput() -> None:
    requests = [*(request(100.0 + n, 10.0) for n in range(9)), request(109.0, 5000.0)]
    [row] = summary(measurement(requests), objective_ms=100).to_dict("records")
    assert (row["count"], row["max_ms"]) == (10, 5000.0)
    assert row["images_per_s"] == pytest.approx(0.9)


def test_goodput_counts_the_valid_answers_within_the_objective_and_errors_have_no_latency() -> None:
    requests = [request(101, 50), request(102, 150), request(103, 1, error="InvalidReply: not finite")]
    [row] = summary(measurement(requests), objective_ms=100).to_dict("records")
    assert (row["count"], row["errors"]) == (3, 1)
    assert (row["images_per_s"], row["goodput_per_s"]) == pytest.approx((0.2, 0.1))
    assert row["p50_ms"] == 100


def test_several_kinds_of_request_have_a_row_each_and_one_for_all() -> None:
    table = summary(measurement([request(101, 50), request(102, 150, name=ENCODED)]), objective_ms=100)
    assert list(table["requests"]) == [ENCODED, TENSOR, "all"]
    assert list(table["count"]) == [1, 1, 2]


def test_stages_are_of_the_time_between_two_looks() -> None:
    [stage] = measurement([]).stages.to_dict("records")
    # 150 requests of 6 ms queue less 50 of 10 ms, over the 100 in between; 100 executions less 50 of them.
    assert stage["queue_ms"] == pytest.approx((150 * 6 - 50 * 10) / 100)
    assert stage["compute_ms"] == pytest.approx((150 * 30 - 50 * 20) / 100)
    assert (stage["images"], stage["failures"], stage["average_batch"]) == (300, 3, 6.0)


def test_the_stages_and_the_rest_add_up_to_what_the_client_saw() -> None:
    measured = measurement([request(101, 60), request(102, 80)])
    stages = where_time_goes(measured, summary(measured, objective_ms=100))
    row = stages.loc[TENSOR]
    assert row["client"] == 70
    assert row.drop("client").sum() == pytest.approx(70)
    assert row["agegendernet: compute"] == pytest.approx(35)


def test_a_load_generator_that_is_late_is_reported() -> None:
    late = summary(measurement([request(101, 60, lag_ms=3 * LATE_MS)]), objective_ms=100)
    [warning] = warnings_of(late)
    assert "left more than 30 ms late" in warning
    assert not warnings_of(summary(measurement([request(101, 60, lag_ms=1)]), objective_ms=100))


def test_the_report_is_one_page_with_everything_in_it_and_every_file_states_the_conditions(tmp_path: Path) -> None:
    failed = request(103, 1, error='InvalidReply: <b>, "quoted"\nand broken')
    measured = measurement([*(request(100 + n / 20, 30 + n) for n in range(100)), failed])
    measured.write(tmp_path)
    text = write_report(measured, tmp_path, objective_ms=100)
    assert "closed loop, 4 users" in text
    page = (tmp_path / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 3
    assert "InvalidReply: &lt;b&gt;" in page
    for name in ("requests.csv", "stages.csv", "summary.csv", "conditions.json", "report.html"):
        assert all(value in (tmp_path / name).read_text() for value in CONDITIONS.values()), name
    for name in ("latency", "course", "stages"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert all(value in picture.info["Description"] for value in CONDITIONS.values())


def test_a_written_measurement_can_be_reported_again_under_another_objective(tmp_path: Path) -> None:
    measured = measurement([request(101, 50), request(102, 150, error="DeadlineExceeded: late")])
    measured.write(tmp_path)
    pd.testing.assert_frame_equal(Measurement.read(tmp_path).requests, measured.requests, check_dtype=False)
    command = [sys.executable, "-m", "loadtest.report", str(tmp_path), "--objective-ms", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "summary.csv", comment="#")
    assert (table["goodput_per_s"].item(), table["objective_ms"].item()) == (0, 20)


def test_a_folder_without_a_measurement_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
