"""How much of the engine's speed reaches a client: raw engine, in process, served in every way, in interleaved rounds.

python -m loadtest.bench --fp32 model_fp32.onnx --int8 model_int8.onnx --out loadtest/results/bench

Writes rounds.csv (a row a measurement, whole rounds only, so that an interrupted run goes on where it stopped),
report.md and ladder.png. Everything runs on the same cores: the generator's and the server's processor time are in
every row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import tyro
from tqdm import tqdm

from contract import program
from contract.repository import copy_with_model
from loadtest.bench.conditions import conditions
from loadtest.bench.report import write_report
from loadtest.bench.rows import Row, RunningServer, engine_rows, served_rows
from loadtest.faces import Pictures, load_pictures
from loadtest.table import read_rows_to_continue, write_table
from serving.server import ANY_PORTS, TritonServer


@dataclass(frozen=True)
class BenchConfig:
    """Measure one model, in one or two precisions, without a server and through one."""

    fp32: Path  # exported by convert.export_onnx
    out: Path = Path("loadtest/results/bench")
    int8: Path | None = None  # of the same network, by convert.quantize; without it only FP32 is measured
    repository: Path = Path("model_repository")  # its code and configurations; its model.onnx is not used
    faces: str = ""  # a manifest.csv or a folder of pictures; synthetic ones without it
    rounds: int = 3  # medians over rounds: a disturbance spoils one
    seconds: float = 3.0  # of each measurement with many in flight; half of it alone, where less scatters

    def models(self) -> dict[str, Path]:
        return {"FP32": self.fp32, **({"INT8": self.int8} if self.int8 else {})}


def main(config: BenchConfig) -> None:
    """Measure the missing rounds, then write the report of all. Raises LoadError, EngineError, ServingError."""
    pictures = load_pictures(config.faces)
    stated = conditions(config.models(), config.repository, pictures, seconds=config.seconds)
    path = config.out / "rounds.csv"
    rows = read_rows_to_continue(path, stated)
    measured = max((int(str(row["round"])) for row in rows), default=0)
    for number in tqdm(range(1 + measured, config.rounds + 1), desc="rounds"):
        rows += [asdict(row) for row in measure_round(config, pictures, number)]
        write_table(pd.DataFrame(rows), path, stated)
    print(write_report(pd.DataFrame(rows), stated, config.out))


def measure_round(config: BenchConfig, pictures: Pictures, number: int) -> list[Row]:
    """Measure everything once. The engine is measured before and after its server, since a machine's speed drifts."""
    rows: list[Row] = []
    for precision, model in config.models().items():
        rows += engine_rows(model, config.seconds)
        with running_server(config.repository, model) as server:
            rows += served_rows(server, pictures, config.seconds)
        rows += engine_rows(model, config.seconds)
        rows = [replace(row, round=number, precision=row.precision or precision) for row in rows]
    return rows


@contextmanager
def running_server(repository: Path, model: Path) -> Iterator[RunningServer]:
    """Start a fresh server of this model with the repository's code and configuration. Raises ServingError."""
    with TemporaryDirectory(prefix="agegendernet-bench-") as folder:
        copied = copy_with_model(repository, Path(folder, "model_repository"), model)
        started_s = time.perf_counter()
        with TritonServer(copied, replace(ANY_PORTS, log=Path(folder, "triton.log"))) as server:
            yield RunningServer(server.grpc_url, server.http_url, server.pid, time.perf_counter() - started_s)


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(BenchConfig)), also=(ValueError,))
