"""Markdown tables, as every report, card and verdict of the project prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """Return a Markdown table: the first `text_columns` columns aligned left, the others, numbers, right.

    Raises ValueError for a row that does not have one cell a column.
    """
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    lines = [list(header), rule, *map(list, rows)]
    if uneven := [line for line in lines if len(line) != len(header)]:
        raise ValueError(f"a row of the table has {len(uneven[0])} cells, its header has {len(header)}: {uneven[0]}")
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
