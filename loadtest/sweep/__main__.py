"""Which settings serve best here: every combination measured on a server of its own, and the best written down.

python -m loadtest.sweep --model fp32=fp32.onnx int8=int8.onnx --p99-limit-ms 50 --apply

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
from tqdm import tqdm

from contract import program
from contract.spec import Images
from loadtest.faces import load_pictures
from loadtest.generator.closed_loop import LoadError, grpc_load
from loadtest.sweep.choice import Choice, apply, choose, describe, medians, results, varied
from loadtest.sweep.conditions import conditions_of
from loadtest.sweep.config import edited, read_config, settings_of
from loadtest.sweep.grid import Server, SweepConfig, estimate_s, in_rounds, model_file, servers_of
from loadtest.sweep.plot import sweep_figure
from loadtest.sweep.table import IN_FLIGHT, MODEL, P50, P99, ROUND, SHA256, THROUGHPUT, Rows, SweepError, records
from loadtest.users.measurement import write_csv
from loadtest.users.plots import save
from serving.errors import StartError
from serving.server import ANY_PORTS, TritonServer

Missing = list[tuple[int, Server, list[int]]]  # round, server, and the loads that it still lacks in that round


@dataclass(frozen=True)
class Sweep:
    """What was measured: the medians over the rounds, the names of the settings among their columns, the conditions."""

    table: pd.DataFrame
    settings: tuple[str, ...]
    conditions: dict[str, str]


def sweep(config: SweepConfig) -> Sweep:
    """Measure what the table lacks. Raises SweepError, ConfigError or ServingError."""
    model_config = read_config(config.config_path)
    servers = servers_of(config, model_config)
    faces = np.concatenate([picture.canonical for picture in load_pictures("").items])
    conditions = conditions_of(config, model_config, f"{len(faces)} synthetic faces")
    with _only_sweep_in(config.out):
        rows = Rows(config.out / "rows.csv", conditions, tuple(settings_of(model_config).columns))
        hashes = {model.name: model.sha256 for model in config.models}
        for name, sha256 in hashes.items():
            rows.check_model(name, sha256)
        failed = _measure_missing(config, rows, servers, hashes, faces)
        asked = [row for row in records(rows.table) if _is_asked(row, servers, config)]
    if failed:
        raise SweepError(
            "\n".join(["these could not be measured; the same command tries again, or leave them out", *failed])
        )
    return Sweep(medians(pd.DataFrame(asked), rows.key), rows.settings, conditions)


def _measure_missing(
    config: SweepConfig, rows: Rows, servers: Sequence[Server], hashes: dict[str, str], faces: Images
) -> list[str]:
    """Why each server that failed did so."""
    missing = _missing(config, rows, servers)
    count = sum(len(loads) for _, _, loads in missing)
    minutes = estimate_s(config, servers=len(missing), measurements=count) / 60
    print(
        f"{count} of {config.rounds * len(servers) * len(config.in_flight)} measurements to make, on {len(missing)} "
        f"fresh servers: about {minutes:.1f} minutes; rows go to {rows.path}",
        flush=True,
    )
    failed = []
    with tqdm(total=count, unit="row", disable=not count) as progress:
        for number, server, loads in missing:
            progress.set_postfix_str(f"{server.model.name} {' '.join(server.settings.columns.values())}")
            try:
                for row in _measure(config, server, loads, faces):
                    rows.add({**row, ROUND: number, SHA256: hashes[server.model.name]})
                    progress.update()
            except (StartError, LoadError) as error:  # of these settings alone, it may be
                failed.append(f"{server.model.name} {server.settings.columns}: {error}")
                progress.write(failed[-1])
    return failed


def _missing(config: SweepConfig, rows: Rows, servers: Sequence[Server]) -> Missing:
    found: Missing = []
    for number, server in in_rounds(servers, config.rounds):
        loads = [n for n in config.in_flight if {**_columns(server), IN_FLIGHT: n, ROUND: number} not in rows]
        if loads:
            found.append((number, server, loads))
    return found


def _measure(config: SweepConfig, server: Server, loads: Sequence[int], faces: Images) -> Iterator[dict[str, object]]:
    """A row for each load, on one fresh server. Raises StartError or LoadError."""
    options = replace(ANY_PORTS, docker=config.docker, log=config.out / "triton.log")
    with _edited_copy(config, server) as repository, TritonServer(repository, options) as running:
        for in_flight in loads:
            load = grpc_load(
                running.grpc_url, faces, in_flight=in_flight, seconds=config.seconds, warm_up_s=config.warm_up_s
            )
            yield {
                **_columns(server),
                IN_FLIGHT: in_flight,
                THROUGHPUT: round(load.throughput, 2),
                P50: round(load.p50_ms, 3),
                P99: round(load.p99_ms, 3),
                "errors": sum(load.errors.values()),
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            }


def _columns(server: Server) -> dict[str, str]:
    return {MODEL: server.model.name, **server.settings.columns}


@contextmanager
def _edited_copy(config: SweepConfig, server: Server) -> Iterator[Path]:
    """The repository with this server's model and settings; always in one place, so that a kill leaves one at most."""
    copy = config.out / "model_repository"
    shutil.rmtree(copy, ignore_errors=True)
    try:
        shutil.copytree(config.repository, copy, ignore=shutil.ignore_patterns("*.onnx", "*.plan*", "__pycache__"))
        path = config.config_path
        (copy / path.relative_to(config.repository)).write_text(edited(path, server.settings), encoding="utf-8")
        target = model_file(copy, docker=config.docker)
        shutil.copy(server.model.path, target)
        if config.docker:  # what the preflight reads
            shutil.copy(f"{server.model.path}.json", f"{target}.json")
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


def _is_asked(row: dict[str, object], servers: Sequence[Server], config: SweepConfig) -> bool:
    """Whether a row is of this grid: the table may hold more, of earlier sweeps."""
    return (
        row[IN_FLIGHT] in config.in_flight
        and int(str(row[ROUND])) <= config.rounds
        and any(all(row[name] == value for name, value in _columns(server).items()) for server in servers)
    )


def report(config: SweepConfig, found: Sweep) -> str:
    """Write medians and picture, choose, and apply where that is asked for; what to print. Raises SweepError."""
    table, names = found.table, varied(found.table, found.settings)
    write_csv(table, config.out / "medians.csv", found.conditions)
    choice = choose(table, p99_limit_ms=config.p99_limit_ms, in_flight=config.choose_in_flight)
    figure = sweep_figure(table, choice.index, found.settings, limit_ms=config.p99_limit_ms)
    save(figure, config.out / "sweep.png", found.conditions)
    columns = {MODEL: "model", **{name: name for name in names}, THROUGHPUT: "images/s", P50: "p50 ms", P99: "p99 ms"}
    front = table[table["pareto"]].sort_values(P99)[list(columns)].rename(columns=columns)
    lines = [
        f"{front.to_string(index=False, float_format='{:.1f}'.format)}\n",
        f"Pareto front of {len(table)} medians; see {config.out / 'medians.csv'} and {config.out / 'sweep.png'}",
        f"Chosen: {describe(choice.row, [MODEL, IN_FLIGHT, *found.settings])}: {choice.rule}",
        f"{results(choice.row)}; with the configuration's present settings {_present(config, found, choice)}",
    ]
    if config.apply:
        apply(config.config_path, table, choice, found.settings, hardware=found.conditions["hardware"])
        lines.append(
            f"Written into {config.config_path}; the model itself stays: measured was {_path_of(config, choice)}"
        )
    return "\n".join(lines)


def _present(config: SweepConfig, found: Sweep, choice: Choice) -> str:
    """What the settings that are about to be replaced gave for the same model and load."""
    present = {**choice.row[[MODEL, IN_FLIGHT]], **settings_of(read_config(config.config_path)).columns}
    rows = found.table[(found.table[list(present)] == pd.Series(present)).all(axis=1)]
    return results(rows.iloc[0]) if len(rows) else "nothing was measured"


def _path_of(config: SweepConfig, choice: Choice) -> Path:
    [path] = [model.path for model in config.models if model.name == choice.row[MODEL]]
    return path


def main(config: SweepConfig) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server is stopped on both
    print(report(config, sweep(config)))


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(SweepConfig)))
