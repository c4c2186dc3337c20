"""Measurements on disk: what is written is read again, and continued under the same conditions only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from loadtest.table import ConditionsError, medians, read_rows_to_continue, read_table, write_table

CONDITIONS = {"hardware": "2 cores", "load": "closed loop: 3 s, # of users 4"}
TABLE = pd.DataFrame({"round": [1, 2], "images_per_s": [1.5, np.nan], "streams": ["0", ""]})


def test_a_table_is_read_as_it_was_written_with_its_conditions(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "rows.csv", CONDITIONS)
    table, conditions = read_table(tmp_path / "rows.csv", text=("streams", "absent"))
    assert conditions == CONDITIONS
    pd.testing.assert_frame_equal(table, TABLE, check_dtype=False)
    assert table["streams"].tolist() == ["0", ""]


def test_a_run_goes_on_with_its_rows_under_its_conditions_alone(tmp_path: Path) -> None:
    assert read_rows_to_continue(tmp_path / "rows.csv", CONDITIONS) == []
    write_table(TABLE, tmp_path / "rows.csv", CONDITIONS)
    assert [row["round"] for row in read_rows_to_continue(tmp_path / "rows.csv", CONDITIONS)] == [1, 2]
    changed = {**CONDITIONS, "hardware": "4 cores", "new": "yes"}
    with pytest.raises(ConditionsError) as caught:
        read_rows_to_continue(tmp_path / "rows.csv", changed)
    assert str(caught.value).splitlines()[1:] == [
        "hardware: 2 cores (there), 4 cores (here)",
        "new: none (there), yes (here)",
    ]


def test_medians_are_over_the_rounds_and_errors_are_added_up() -> None:
    rows = pd.DataFrame(
        {"server": "a", "round": n, "images_per_s": value, "p50_ms": n, "p99_ms": 2.0 * n, "errors": n}
        for n, value in ((1, 9.0), (2, 5.0), (3, 700.0))
    )
    [row] = medians(rows, ["server"]).to_dict("records")
    assert (row["images_per_s"], row["least_images_per_s"], row["most_images_per_s"]) == (9.0, 5.0, 700.0)
    assert (row["p50_ms"], row["p99_ms"], row["errors"], row["rounds"]) == (2, 4.0, 6, 3)
