"""Our server and what people would write instead, side by side: the same weights, load and cores, in one run.

    python -m loadtest.compare --fp32 model.onnx --int8 int8.onnx --int8-onnxruntime int8_ort.onnx \
        --pytorch model.pt2 --out runs/compare

One server is up at a time. Every round starts each of them anew, asks it for its answers, which must be ours, and
measures it; docs/compare.md says how the peers were tuned. Writes measurements.csv as it goes, then report.md and
report.png.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from tqdm import tqdm

from contract import program
from contract.spec import Images, Predictions
from loadtest.compare.conditions import conditions_of
from loadtest.compare.contestants import OURS, CompareConfig, Contestant, Precision, contestants_of
from loadtest.compare.endpoints import Endpoint
from loadtest.compare.peer_server import PEERS, PeerError
from loadtest.compare.report import write_report
from loadtest.faces import load_pictures
from loadtest.table import IN_FLIGHT, ROUND, columns_of, write_table

CHECKED_FACES = 16  # whose answers are compared before a server is measured
# Between runtimes, and for INT8 between two files that were quantized differently.
TOLERANCE = {"FP32": (0.01, 0.001), "INT8": (3.0, 0.15)}  # years, probability


@dataclass
class Comparison:
    """The rounds: measurements so far, on disk as soon as they are made, and the answers that others must give."""

    config: CompareConfig
    faces: Images
    conditions: dict[str, str]
    rows: list[dict[str, object]] = field(default_factory=list)
    answers: dict[Precision, Predictions] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)

    def measure(self, contestant: Contestant, round_number: int) -> None:
        """Start it, check its answers, measure it at each load. Raises PeerError, ServingError or LoadError."""
        started_s = time.perf_counter()
        with contestant.running(self.config) as endpoints:
            ready_s = time.perf_counter() - started_s
            for endpoint in endpoints:
                self._check(contestant, endpoint)
                for in_flight in self.config.in_flight:
                    self._add(contestant, endpoint, in_flight, round_number, ready_s)

    def _check(self, contestant: Contestant, endpoint: Endpoint) -> None:
        """Ours comes first in a round, so its answers are what the others' are compared with."""
        given = endpoint.predict(self.faces[:CHECKED_FACES])
        expected = self.answers.setdefault(contestant.precision, given)
        check_answers(contestant, expected, given)

    def _add(
        self, contestant: Contestant, endpoint: Endpoint, in_flight: int, round_number: int, ready_s: float
    ) -> None:
        load = endpoint.load(
            self.faces, in_flight=in_flight, seconds=self.config.seconds, warm_up_s=self.config.warm_up_s
        )
        if not len(load.latencies_ms):
            raise PeerError(
                f"{contestant.server} with {contestant.model} gave no valid answer at {in_flight} in flight within "
                f"{self.config.seconds:g} s ({dict(load.errors) or 'no error either'}); measure for longer (--seconds)"
            )
        self.rows.append(
            {
                ROUND: round_number,
                "server": contestant.server,
                "precision": contestant.precision,
                "protocol": endpoint.protocol,
                IN_FLIGHT: in_flight,
                **columns_of(load),
                "generator_ms_per_image": round(load.cpu_ms_per_image, 3),
                "ready_s": round(ready_s, 1),
                "model": contestant.model.name,
                "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            }
        )
        write_table(self.table, self.config.out / "measurements.csv", self.conditions)


def check_answers(contestant: Contestant, expected: Predictions, given: Predictions) -> None:
    """Raise PeerError where the answers are not those of the same weights."""
    years = float(np.abs(given.age - expected.age).max())
    probability = float(
        max(np.abs(given.gender - expected.gender).max(), np.abs(given.emotion - expected.emotion).max())
    )
    age_limit, probability_limit = TOLERANCE[contestant.precision]
    if not (years <= age_limit and probability <= probability_limit):
        raise PeerError(
            f"{contestant.server} with {contestant.model} answers otherwise than {OURS}: {years:.3g} years and "
            f"{probability:.3g} in probability apart (limits {age_limit:g} and {probability_limit:g}); give all "
            "servers the same weights"
        )


def faster_for_onnxruntime(config: CompareConfig, faces: Images) -> Path | None:
    """Try each quantized file once in a server of ONNX Runtime's; return the one with the higher throughput."""
    files = [path for path in (config.int8, config.int8_onnxruntime) if path]
    if len(files) < 2:
        return files[0] if files else None
    throughput = {path: _throughput(path, config, faces) for path in tqdm(files, "INT8 files in ONNX Runtime")}
    return max(files, key=throughput.__getitem__)


def _throughput(model: Path, config: CompareConfig, faces: Images) -> float:
    with Contestant("FastAPI + ONNX Runtime", "INT8", model).running(config) as [endpoint]:
        load = endpoint.load(faces, in_flight=16, seconds=config.seconds, warm_up_s=config.warm_up_s)
    return load.throughput


def run(config: CompareConfig) -> str:
    """Measure and write everything; the report as Markdown."""
    pictures = load_pictures(config.faces)
    faces = np.concatenate([picture.canonical for picture in pictures.items])
    comparison = Comparison(config, faces, conditions_of(config, pictures.description))
    contestants = contestants_of(config, faster_for_onnxruntime(config, faces))
    turns = [(number, contestant) for number in range(1, config.rounds + 1) for contestant in contestants]
    for number, contestant in (progress := tqdm(turns, "servers")):
        progress.set_postfix_str(f"round {number}, {contestant.server}, {contestant.precision}")
        comparison.measure(contestant, number)
    return write_report(comparison.table, config.out, comparison.conditions)


def main(config: CompareConfig) -> int:
    if unknown := sorted(set(config.only) - set(PEERS)):
        raise PeerError(f"no peer is called {', '.join(unknown)}; there are {', '.join(PEERS)}")
    print(run(config))
    print(f"wrote {config.out}/report.md, report.png and measurements.csv")
    return 0


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(CompareConfig)), also=(ValueError,))
