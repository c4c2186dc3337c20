"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from contract.files import files_below, replacing


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old", "a reader still sees the old file while the new one is written"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half_and_raise(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "report.csv"
    path.write_text("old")
    with pytest.raises(error):
        write_half_and_raise(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_makes_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_half_and_raise(tmp_path / "report.csv", ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made(tmp_path: Path) -> None:
    with replacing(tmp_path / "runs" / "demo" / "report.md") as temporary:
        temporary.write_text("text")
    assert (tmp_path / "runs" / "demo" / "report.md").read_text() == "text"


def test_the_temporary_name_keeps_the_suffix_that_savers_choose_the_format_by(tmp_path: Path) -> None:
    with replacing(tmp_path / "images.npy") as temporary:
        np.save(temporary, np.arange(3))
    assert np.load(tmp_path / "images.npy").tolist() == [0, 1, 2]


def test_the_temporary_file_is_in_the_same_folder_so_that_renaming_is_atomic(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("")


def test_files_below_follows_links_each_folder_once_and_leaves_hidden_ones_out(tmp_path: Path) -> None:
    for name in ("a.png", "real/b.PNG", "real/c.txt", ".hidden/d.png", "given/.e.png", "given/f.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "given" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "given" / "circle").symlink_to(tmp_path / "given")
    (tmp_path / "given" / os.fsdecode(b"caf\xe9.png")).touch()
    found = [str(path.relative_to(tmp_path)) for path in files_below(tmp_path / "given", {".png", ".jpg"})]
    assert found == sorted([os.fsdecode(b"given/caf\xe9.png"), "given/f.jpg", "given/link/b.PNG"])


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files_below(tmp_path / "absent", {".png"})
