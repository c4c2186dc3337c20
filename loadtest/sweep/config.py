"""A hand-written config.pbtxt with other settings: edited as text, so that all that people wrote there stays.

Protobuf's printer would drop every comment. What the edit gives is parsed, and has to equal the parsed original with
the same settings changed; so a file that is written in a way unknown here is refused, never broken.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from contract.program import UserError

QUEUE_DELAY, INSTANCES = "queue_delay_us", "instances"  # settings beside the names of `parameters`
LINE_LENGTH = 120


class ConfigError(UserError, ValueError):
    """A configuration has not what is to be set in it; the message names what it has."""


@dataclass(frozen=True)
class Settings:
    """What a sweep varies of a model's configuration."""

    queue_delay_us: int
    instances: int
    parameters: Mapping[str, str]  # all of the configuration, by name

    @property
    def columns(self) -> dict[str, str]:
        """Every setting by name, as text."""
        return {QUEUE_DELAY: str(self.queue_delay_us), INSTANCES: str(self.instances), **self.parameters}

    @classmethod
    def of(cls, columns: Mapping[str, str]) -> Settings:
        """From `columns` again."""
        parameters = {name: value for name, value in columns.items() if name not in (QUEUE_DELAY, INSTANCES)}
        return cls(int(columns[QUEUE_DELAY]), int(columns[INSTANCES]), parameters)


def read_config(path: Path) -> ModelConfig:
    """Raises ConfigError for a missing or broken file, or one that lacks what a sweep sets."""
    try:
        config = text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise ConfigError(f"{path} cannot be read as a model's configuration: {error}") from error
    if not config.HasField("dynamic_batching"):
        raise ConfigError(f"{path} has no dynamic_batching, which holds the queue delay; write dynamic_batching {{}}")
    if len(config.instance_group) != 1:
        raise ConfigError(f"{path} has {len(config.instance_group)} instance groups; the sweep sets the count of one")
    return config


def settings_of(config: ModelConfig) -> Settings:
    return Settings(
        queue_delay_us=config.dynamic_batching.max_queue_delay_microseconds,
        instances=config.instance_group[0].count or 1,  # absent stands for one
        parameters={name: value.string_value for name, value in sorted(config.parameters.items())},
    )


def fingerprint(config: ModelConfig) -> str:
    """SHA-256 of all that `Settings` does not hold."""
    rest = ModelConfig()
    rest.CopyFrom(config)
    rest.dynamic_batching.ClearField("max_queue_delay_microseconds")
    rest.instance_group[0].ClearField("count")
    rest.ClearField("parameters")
    return hashlib.sha256(rest.SerializeToString(deterministic=True)).hexdigest()


def check_settings(path: Path, config: ModelConfig, settings: Settings) -> None:
    """Raises ConfigError for a parameter that the configuration lacks and for a delay that its server cannot bear."""
    known = set(settings_of(config).parameters)
    if unknown := sorted(set(settings.parameters) - known):
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise ConfigError(f"{path} has no parameter {', '.join(unknown)}; {has}")
    if settings.queue_delay_us and config.dynamic_batching.HasField("default_queue_policy"):
        raise ConfigError(
            f"{path} has a queue policy, and with a queue delay beside it merged batches slow the server down for good "
            "(issue 8870 of triton-inference-server/server); sweep --queue-delay-us 0, or delete the policy"
        )


def edited(path: Path, settings: Settings, notes: Mapping[str, str] | None = None) -> str:
    """The file's text with these settings; `notes` (name of a setting -> sentence) become comments above theirs.

    A note begins with "Sweep of " and replaces the one that an earlier sweep left there. Raises ConfigError.
    """
    config = read_config(path)
    check_settings(path, config, settings)
    old = settings_of(config)
    text = path.read_text(encoding="utf-8")
    top, _ = _fields(iter(_TOKEN.finditer(text)))
    edits = [*_setting_edits(text, top, old, settings), *_note_edits(text, top, notes or {})]
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    if _parsed_or_none(text) != _with(config, old, settings):
        raise ConfigError(f"{path} is written in a way that cannot be edited here; set {settings.columns} by hand")
    return text


def _with(config: ModelConfig, old: Settings, settings: Settings) -> ModelConfig:
    """The configuration that the edited text has to mean."""
    intended = ModelConfig()
    intended.CopyFrom(config)
    if settings.queue_delay_us != old.queue_delay_us:
        intended.dynamic_batching.max_queue_delay_microseconds = settings.queue_delay_us
    if settings.instances != old.instances:
        intended.instance_group[0].count = settings.instances
    for name, value in settings.parameters.items():
        intended.parameters[name].string_value = value
    return intended


def _parsed_or_none(text: str) -> ModelConfig | None:
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError:
        return None


# The text: where each field stands in it. Comments come first, so that no brace within one counts.
_TOKEN = re.compile(
    r"""\#[^\n]* | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [{}<>\[\]:,;] | [^\s{}<>\[\]:,;\#"']+""", re.X
)
_OWN_NOTE = re.compile(r"(?:^# Sweep of [^\n]*\n(?:#   [^\n]*\n)*)+\Z", re.M)
_Edit = tuple[int, int, str]  # replace text[start:end]


@dataclass(frozen=True)
class _Field:
    """A field as it stands in the text; `start` and `end` hold a scalar, or what is between a message's braces."""

    name: str
    name_start: int
    start: int
    end: int
    fields: tuple[_Field, ...] = ()


def _fields(tokens: Iterator[re.Match[str]]) -> tuple[tuple[_Field, ...], int]:
    """The fields up to the brace that closes them, or to the end; and where that brace stands."""
    found: list[_Field] = []
    for token in tokens:
        if token[0] in "}>":
            return tuple(found), token.start()
        if token[0] not in ",;" and not token[0].startswith("#"):
            found += _values(token, tokens)
    return tuple(found), -1


def _values(name: re.Match[str], tokens: Iterator[re.Match[str]]) -> list[_Field]:
    """The value of one name, or each of its list."""
    found: list[_Field] = []
    in_list = False
    for token in tokens:
        if token[0] == "[":
            in_list = True
        elif token[0] == "]":
            break
        elif token[0] in "{<":
            inner, closing = _fields(tokens)
            found.append(_Field(name[0], name.start(), token.end(), closing, inner))
        elif token[0] not in ":,;" and not token[0].startswith("#"):
            found.append(_Field(name[0], name.start(), token.start(), token.end()))
        if found and not in_list:
            break
    return found


def _setting_edits(text: str, top: tuple[_Field, ...], old: Settings, new: Settings) -> Iterator[_Edit]:
    if new.queue_delay_us != old.queue_delay_us:
        yield _set(text, _owner(text, top, QUEUE_DELAY), "max_queue_delay_microseconds", str(new.queue_delay_us))
    if new.instances != old.instances:
        yield _set(text, _owner(text, top, INSTANCES), "count", str(new.instances))
    for name, value in new.parameters.items():
        if value != old.parameters[name]:
            [holder] = [field for field in _owner(text, top, name).fields if field.name == "value"]
            yield _set(text, holder, "string_value", json.dumps(value))


def _owner(text: str, top: tuple[_Field, ...], setting: str) -> _Field:
    """The field of the file's top level that holds a setting."""
    names = {QUEUE_DELAY: "dynamic_batching", INSTANCES: "instance_group"}
    for field in top:
        if field.name == names.get(setting, "parameters"):
            keys = [text[inner.start : inner.end].strip("\"'") for inner in field.fields if inner.name == "key"]
            if setting in names or setting in keys:
                return field
    raise ConfigError(f"{setting} was not found in the text; set it by hand")


def _set(text: str, message: _Field, name: str, literal: str) -> _Edit:
    """Replace the field's value, or write the field as the first of its message."""
    for field in message.fields:
        if field.name == name:
            return field.start, field.end, literal
    inside = text[message.start : message.end]
    if "\n" not in inside:
        return message.start, message.start, f" {name}: {literal}" + ("" if inside.startswith(" ") else " ")
    indent = " " * (message.name_start - text.rfind("\n", 0, message.name_start) + 1)
    return message.start, message.start, f"\n{indent}{name}: {literal}"


def _note_edits(text: str, top: tuple[_Field, ...], notes: Mapping[str, str]) -> Iterator[_Edit]:
    """Each note above the line where its setting's field begins, in place of an earlier sweep's."""
    lines: dict[int, str] = {}
    for setting, note in notes.items():
        line_start = text.rfind("\n", 0, _owner(text, top, setting).name_start) + 1
        wrapped = textwrap.fill(note, LINE_LENGTH, initial_indent="# ", subsequent_indent="#   ")
        lines[line_start] = lines.get(line_start, "") + wrapped + "\n"
    for line_start, comment in lines.items():
        earlier = _OWN_NOTE.search(text[:line_start])
        yield (earlier.start() if earlier else line_start), line_start, comment
