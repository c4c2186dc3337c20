"""The hand-written configurations, edited: what people wrote stays, and the result means what was asked for."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

import pandas as pd
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.spec import MODEL_NAME
from loadtest.sweep.choice import Choice, apply
from loadtest.sweep.config import ConfigError, Settings, check_settings, edited, fingerprint, read_config, settings_of

MODEL = Path(__file__).resolve().parents[3] / "model_repository" / MODEL_NAME
FILES = ("config.pbtxt", "configs/cpu.pbtxt")


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(MODEL / request.param, tmp_path / "config.pbtxt"))


def changed_lines(old: str, new: str) -> list[str]:
    lines = difflib.ndiff(old.splitlines(), new.splitlines())
    return [line for line in lines if line[0] in "+-"]


def test_the_settings_as_they_are_change_no_letter(path: Path) -> None:
    assert edited(path, settings_of(read_config(path))) == path.read_text()


def test_only_the_value_and_its_note_change(path: Path) -> None:
    old = path.read_text()
    new = edited(path, Settings(0, 3, {}), {"instances": "Sweep of today: three did best."})
    changed = changed_lines(old, new)
    assert changed[0] == "+ # Sweep of today: three did best."
    assert [line[0] for line in changed[1:]] == ["-", "+"]
    assert changed[1][1:].replace("count: 1", "count: 3") == changed[2][1:]
    assert new.splitlines()[new.splitlines().index(changed[0][2:]) + 1] == "instance_group ["
    intended = text_format.Parse(old, ModelConfig())
    intended.instance_group[0].count = 3
    assert text_format.Parse(new, ModelConfig()) == intended


def test_every_parameter_and_the_delay_can_be_set_and_set_back() -> None:
    path = MODEL / "configs" / "cpu.pbtxt"
    before = settings_of(read_config(path))
    wanted = Settings(250, 2, dict.fromkeys(before.parameters, '7 "and" \\ more'))
    new = text_format.Parse(edited(path, wanted), ModelConfig())
    assert settings_of(new) == wanted
    assert fingerprint(new) == fingerprint(read_config(path))


def test_setting_back_leaves_the_file_meaning_what_it_did(path: Path) -> None:
    before = read_config(path)
    path.write_text(edited(path, Settings(0, 5, {}), {"instances": "Sweep of one: five."}))
    path.write_text(edited(path, settings_of(before), {}))
    assert read_config(path) == before


def test_a_later_note_replaces_the_earlier_one_and_no_other_comment(path: Path) -> None:
    old = path.read_text()
    long = "Sweep of Monday: " + "a sentence that goes on for some lines; " * 9
    path.write_text(edited(path, Settings(0, 2, {}), {"instances": long, "queue_delay_us": long}))
    assert max(map(len, path.read_text().splitlines())) <= max(120, *map(len, old.splitlines()))
    notes = {"instances": "Sweep of Tuesday: one.", "queue_delay_us": "Sweep of Tuesday: none."}
    new = edited(path, Settings(0, 1, {}), notes)
    assert changed_lines(old, new) == ["+ # Sweep of Tuesday: none.", "+ # Sweep of Tuesday: one."]


def test_apply_writes_the_chosen_row_beside_what_was_measured_instead(path: Path) -> None:
    names = list(settings_of(read_config(path)).columns)
    kept = dict.fromkeys(names[2:], "512")
    table = pd.DataFrame(
        {"model": "int8", "queue_delay_us": "0", "instances": count, **kept, "in_flight": 16, "rounds": 3, **measured}
        for count, measured in (
            ("1", {"images_per_s": 480.0, "p99_ms": 41.0}),
            ("2", {"images_per_s": 512.3, "p99_ms": 38.1}),
        )
    )
    apply(path, table, Choice(table.iloc[1], 1, "the most"), names, hardware="AMD EPYC, 2 of 2 cores")
    assert read_config(path).instance_group[0].count == 2
    note = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith(("# Sweep", "#   ")))
    assert "instances 2: 512.3 images/s, p99 38.1 ms; instances 1: 480 images/s, p99 41 ms." in note
    assert "At int8, 16 in flight; medians of 3 rounds on AMD EPYC, 2 of 2 cores; chosen for the most." in note
    assert note.count("Sweep of") == 1


def test_a_queue_delay_beside_a_queue_policy_is_refused() -> None:
    path = MODEL / "config.pbtxt"
    with pytest.raises(ConfigError, match=r"has a queue policy.*--queue-delay-us 0"):
        check_settings(path, read_config(path), Settings(500, 1, {}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: ", "cannot be read"),
        ("instance_group { count: 1 }", "has no dynamic_batching"),
        ("dynamic_batching {}", "has 0 instance groups"),
        ("dynamic_batching {} instance_group [{ count: 1 }, { count: 2 }]", "has 2 instance groups"),
    ],
)
def test_a_configuration_that_cannot_be_swept_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.pbtxt").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_config(tmp_path / "config.pbtxt")


@pytest.mark.parametrize(
    "text",
    [
        'dynamic_batching{}instance_group{}parameters{key:"a",value{string_value:"1"}}',
        "dynamic_batching: <> instance_group [<kind: KIND_CPU>] parameters [{ key: 'a' value: { string_value: '}' } }]",
        'dynamic_batching {\n # }\n}\ninstance_group [\n  {\n  count: 1 # {\n  }\n]\nparameters { key: "a" value {} }',
    ],
)
def test_the_formats_other_spellings_are_understood(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    wanted = Settings(10, 2, {"a": "2"})
    path.write_text(edited(path, wanted, {"instances": "Sweep of today: two.", "a": "Sweep of today: 2."}))
    assert settings_of(read_config(path)) == wanted
