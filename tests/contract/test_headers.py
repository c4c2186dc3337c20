from __future__ import annotations

from pathlib import Path

import pytest

from contract.headers import HeadersError, read_headers

SECRET = "s3cr3t"


def test_lines_become_headers_with_names_in_lower_case(tmp_path: Path) -> None:
    path = tmp_path / "headers.txt"
    path.write_text("Authorization: Bearer a:b==\n\n  x-key :  value  \nempty:\n")
    assert read_headers(path) == {"authorization": "Bearer a:b==", "x-key": "value", "empty": ""}


@pytest.mark.parametrize("line", [SECRET, f": {SECRET}"])
def test_a_line_without_a_name_is_counted_and_not_shown(tmp_path: Path, line: str) -> None:
    path = tmp_path / "headers.txt"
    path.write_text(f"a: b\n{line}\n")
    with pytest.raises(HeadersError, match=r"headers\.txt, line 2: write 'name: value'") as caught:
        read_headers(path)
    assert SECRET not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadersError, match=r"absent\.txt: No such file"):
        read_headers(tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"a: \xe9\n")
    with pytest.raises(HeadersError, match=r"latin\.txt: it is not UTF-8 text"):
        read_headers(tmp_path / "latin.txt")
