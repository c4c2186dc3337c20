"""One function writes every Markdown table: alignment by column, and no row that lacks a cell."""

from __future__ import annotations

import pytest

from evaluation.text import markdown_table


def test_text_is_aligned_left_and_numbers_right() -> None:
    assert markdown_table(["score", "unit", "value"], [["MAE", "years", "4.20"]], text_columns=2) == (
        "| score | unit | value |\n| --- | --- | ---: |\n| MAE | years | 4.20 |"
    )


def test_a_row_with_a_cell_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells, its header has 3"):
        markdown_table(["a", "b", "c"], [["1", "2"]])
