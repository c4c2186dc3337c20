"""The configurations as a sweep reads, changes and prints them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.repository import model_config_path
from loadtest.sweep.choice import Choice, lines_to_paste
from loadtest.sweep.config import (
    ConfigError,
    Settings,
    check_settings,
    fingerprint,
    read_config,
    settings_of,
    with_settings,
)

REPOSITORY = Path(__file__).resolve().parents[3] / "model_repository"
CPU, ENGINE = (model_config_path(REPOSITORY, cpu=cpu) for cpu in (True, False))


@pytest.mark.parametrize("path", [CPU, ENGINE])
def test_a_changed_configuration_has_the_settings_and_all_else_that_the_file_has(path: Path) -> None:
    config = read_config(path)
    before = settings_of(config)
    wanted = Settings(250, 3, dict.fromkeys(before.parameters, '7 "and" \\ more'))
    changed = with_settings(config, wanted)
    assert settings_of(changed) == wanted
    assert settings_of(config) == before
    assert fingerprint(changed) == fingerprint(config)
    assert with_settings(changed, before) == with_settings(config, before)


def test_the_lines_to_paste_say_what_changes_and_what_else_was_measured() -> None:
    present = settings_of(read_config(CPU)).columns
    names = list(present)
    table = pd.DataFrame(
        {"model": "int8", **present, "instances": count, "streams": streams, "in_flight": 16, "rounds": 3, **measured}
        for count, streams, measured in (
            ("1", "0", {"images_per_s": 480.0, "p99_ms": 41.0}),
            ("2", "0", {"images_per_s": 512.3, "p99_ms": 38.1}),
            ("2", '"4"', {"images_per_s": 530.0, "p99_ms": 35.0}),
        )
    )
    choice = Choice(table.iloc[2], 2, "the most")
    lines = lines_to_paste(table, choice, names, present, hardware="AMD EPYC, 2 of 2 cores")
    parsed = text_format.Parse("\n".join(lines), ModelConfig())
    assert parsed.instance_group[0].count == 2
    assert {name: value.string_value for name, value in parsed.parameters.items()} == {"streams": '"4"'}
    assert max(map(len, lines)) <= 120
    note = " ".join(line.removeprefix("# ") for line in lines if line.startswith("# "))
    assert note.count("Sweep of") == 2
    assert 'streams "4": 530 images/s, p99 35 ms; streams 0: 512.3 images/s, p99 38.1 ms.' in note
    assert "instances 2; medians of 3 rounds on AMD EPYC, 2 of 2 cores; chosen for the most." in note


def test_the_present_settings_leave_nothing_to_paste() -> None:
    present = settings_of(read_config(CPU)).columns
    row = pd.Series({"model": "int8", **present, "in_flight": 16, "rounds": 3, "images_per_s": 480.0, "p99_ms": 41.0})
    assert lines_to_paste(row.to_frame().T, Choice(row, 0, "the most"), list(present), present, hardware="") == []


def test_a_queue_delay_beside_a_queue_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has a queue policy.*--queue-delay-us 0"):
        check_settings(ENGINE, read_config(ENGINE), Settings(500, 1, {}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: ", "is not a model configuration"),
        ("instance_group { count: 1 }", "has no dynamic_batching"),
        ("dynamic_batching {}", "has 0 instance groups"),
        ("dynamic_batching {} instance_group [{ count: 1 }, { count: 2 }]", "has 2 instance groups"),
    ],
)
def test_a_configuration_that_cannot_be_swept_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.pbtxt").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_config(tmp_path / "config.pbtxt")
