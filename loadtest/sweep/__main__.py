"""Which settings serve best here: every combination measured on a server of its own, and the best chosen.

python -m loadtest.sweep --model fp32=fp32.onnx int8=int8.onnx --p99-limit-ms 50

Stopped by whatever, the same command goes on where it was; with all rows there, it only draws and chooses.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from google.protobuf import text_format
from tqdm import tqdm

from contract import program
from contract.repository import copy_with_model
from contract.spec import Images
from loadtest.faces import load_pictures
from loadtest.generator.closed_loop import LoadError, grpc_load
from loadtest.sweep.choice import Choice, choose, describe, lines_to_paste, results, swept, varied
from loadtest.sweep.conditions import conditions_of
from loadtest.sweep.config import read_config, settings_of, with_settings
from loadtest.sweep.grid import GridPoint, SweepConfig, estimate_s, in_rounds, points_of
from loadtest.sweep.plot import sweep_figure
from loadtest.sweep.rows import MODEL, SHA256, Rows, SweepError
from loadtest.table import (
    IN_FLIGHT,
    P50,
    P99,
    ROUND,
    THROUGHPUT,
    columns_of,
    records,
    write_table,
)
from loadtest.users.plots import save
from serving.errors import StartError
from serving.server import ANY_PORTS, TritonServer

Missing = list[tuple[int, GridPoint, list[int]]]  # round, point, and the loads that it still lacks in that round


@dataclass(frozen=True)
class Sweep:
    """What was measured: the medians over the rounds, the names of the settings among their columns, the conditions."""

    table: pd.DataFrame
    settings: tuple[str, ...]
    conditions: dict[str, str]


def sweep(config: SweepConfig) -> Sweep:
    """Measure what the table lacks. Raises SweepError, ConfigError or ServingError."""
    model_config = read_config(config.config_path)
    points = points_of(config, model_config)
    pictures = load_pictures(config.faces)
    faces = np.concatenate([picture.canonical for picture in pictures.items])
    conditions = conditions_of(config, model_config, pictures.description)
    with _only_sweep_in(config.out):
        rows = Rows(config.out / "rows.csv", conditions, tuple(settings_of(model_config).columns))
        hashes = {model.name: model.sha256 for model in config.models}
        for name, sha256 in hashes.items():
            rows.check_model(name, sha256)
        failed = _measure_missing(config, rows, points, hashes, faces)
        asked = [row for row in records(rows.table) if _is_asked(row, points, config)]
    if failed:
        raise SweepError(
            "\n".join(["these could not be measured; the same command tries again, or leave them out", *failed])
        )
    return Sweep(swept(pd.DataFrame(asked), rows.key), rows.settings, conditions)


def _measure_missing(
    config: SweepConfig, rows: Rows, points: Sequence[GridPoint], hashes: dict[str, str], faces: Images
) -> list[str]:
    """Why each server that failed did so."""
    missing = _missing(config, rows, points)
    count = sum(len(loads) for _, _, loads in missing)
    minutes = estimate_s(config, servers=len(missing), measurements=count) / 60
    print(
        f"{count} of {config.rounds * len(points) * len(config.in_flight)} measurements to make, on {len(missing)} "
        f"fresh servers: about {minutes:.1f} minutes; rows go to {rows.path}",
        flush=True,
    )
    failed = []
    with tqdm(total=count, unit="row", disable=not count) as progress:
        for number, point, loads in missing:
            progress.set_postfix_str(f"{point.model.name} {' '.join(point.settings.columns.values())}")
            try:
                for row in _measure(config, point, loads, faces):
                    rows.add({**row, ROUND: number, SHA256: hashes[point.model.name]})
                    progress.update()
            except (StartError, LoadError) as error:  # of these settings alone, it may be
                failed.append(f"{point.model.name} {point.settings.columns}: {error}")
                progress.write(failed[-1])
    return failed


def _missing(config: SweepConfig, rows: Rows, points: Sequence[GridPoint]) -> Missing:
    found: Missing = []
    for number, point in in_rounds(points, config.rounds):
        loads = [n for n in config.in_flight if {**_columns(point), IN_FLIGHT: n, ROUND: number} not in rows]
        if loads:
            found.append((number, point, loads))
    return found


def _measure(config: SweepConfig, point: GridPoint, loads: Sequence[int], faces: Images) -> Iterator[dict[str, object]]:
    """A row for each load, on one fresh server. Raises StartError or LoadError."""
    options = replace(ANY_PORTS, docker=config.docker, log=config.out / "triton.log")
    with _repository_of(config, point) as repository, TritonServer(repository, options) as running:
        for in_flight in loads:
            load = grpc_load(
                running.grpc_url, faces, in_flight=in_flight, seconds=config.seconds, warm_up_s=config.warm_up_s
            )
            yield {
                **_columns(point),
                IN_FLIGHT: in_flight,
                **columns_of(load),
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }


def _columns(point: GridPoint) -> dict[str, str]:
    return {MODEL: point.model.name, **point.settings.columns}


@contextmanager
def _repository_of(config: SweepConfig, point: GridPoint) -> Iterator[Path]:
    """A repository with this point's model and settings; always in one place, so that a kill leaves one at most."""
    copy = config.out / "model_repository"
    shutil.rmtree(copy, ignore_errors=True)
    try:
        copy_with_model(config.repository, copy, point.model.path, name=config.model_name)
        changed = with_settings(read_config(config.config_path), point.settings)
        path = copy / config.config_path.relative_to(config.repository)
        path.write_text(text_format.MessageToString(changed), encoding="utf-8")
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


@contextmanager
def _only_sweep_in(folder: Path) -> Iterator[None]:
    """Raises SweepError where another sweep, which may not share rows or cores with this one, runs in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SweepError(
                f"another sweep is running in {folder}; wait for it, or give this one another --out"
            ) from None
        yield


def _is_asked(row: dict[str, object], points: Sequence[GridPoint], config: SweepConfig) -> bool:
    """Whether a row is of this grid: the table may hold more, of earlier sweeps."""
    return (
        row[IN_FLIGHT] in config.in_flight
        and int(str(row[ROUND])) <= config.rounds
        and any(all(row[name] == value for name, value in _columns(point).items()) for point in points)
    )


def report(config: SweepConfig, found: Sweep) -> str:
    """Write medians and picture, and choose; return what to print. Raises SweepError."""
    table, names = found.table, varied(found.table, found.settings)
    write_table(table, config.out / "medians.csv", found.conditions)
    choice = choose(table, p99_limit_ms=config.p99_limit_ms, in_flight=config.choose_in_flight)
    figure = sweep_figure(table, choice.index, found.settings, limit_ms=config.p99_limit_ms)
    save(figure, config.out / "sweep.png", found.conditions)
    columns = {MODEL: "model", **{name: name for name in names}, THROUGHPUT: "images/s", P50: "p50 ms", P99: "p99 ms"}
    front = table[table["pareto"]].sort_values(P99)[list(columns)].rename(columns=columns)
    lines = [
        f"{front.to_string(index=False, float_format='{:.1f}'.format)}\n",
        f"Pareto front of {len(table)} medians; see {config.out / 'medians.csv'} and {config.out / 'sweep.png'}",
        f"Chosen: {describe(choice.row, [MODEL, IN_FLIGHT, *found.settings])}: {choice.rule}",
        *_what_to_change(config, found, choice),
    ]
    return "\n".join(lines)


def _what_to_change(config: SweepConfig, found: Sweep, choice: Choice) -> list[str]:
    """The chosen results beside the present ones, and the lines of the configuration that lead from these to those."""
    present = settings_of(read_config(config.config_path)).columns
    same = {**choice.row[[MODEL, IN_FLIGHT]], **present}
    rows = found.table[(found.table[list(same)] == pd.Series(same)).all(axis=1)]
    before = results(rows.iloc[0]) if len(rows) else "nothing was measured"
    lines = lines_to_paste(found.table, choice, found.settings, present, hardware=found.conditions["hardware"])
    return [
        f"{results(choice.row)}; with the present settings of {config.config_path} {before}",
        *([f"To serve so, change these fields of {config.config_path}:\n", *lines] if lines else []),
    ]


def main(config: SweepConfig) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server is stopped on both
    print(report(config, sweep(config)))


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(SweepConfig)))
