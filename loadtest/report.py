"""A load test's numbers, pictures and one self-contained HTML page, from the folder that locust wrote.

python -m loadtest.report runs/loadtest --objective-ms 100
"""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from contract import program
from contract.files import replacing
from loadtest.table import write_table
from loadtest.users.measurement import Measurement, errors, summary, where_time_goes
from loadtest.users.plots import course_figure, latency_figure, save, stages_figure

LATE_MS = 10.0  # of lag: more, and it is the load generator that is measured

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Load test</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }}
td, th {{ padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem }}
dt {{ color: #777 }} dd {{ margin: 0 }} img {{ max-width: 100% }} .warning {{ color: #a00 }}
</style>
<h1>Load test</h1>
{body}
</html>
"""


@dataclass(frozen=True)
class ReportConfig:
    """Report on a load test again, for instance under another latency objective."""

    folder: Annotated[Path, tyro.conf.Positional]  # with requests.csv, stages.csv and conditions.json
    objective_ms: float = 250.0  # goodput counts the valid answers within it


def write_report(measurement: Measurement, folder: Path, *, objective_ms: float) -> str:
    """Write summary.csv, the pictures and report.html; the summary as text for a terminal."""
    table = summary(measurement, objective_ms=objective_ms)
    if not table["count"].any():
        return "no request was due after the warm-up; run longer"
    write_table(table, folder / "summary.csv", measurement.conditions)
    stages = where_time_goes(measurement, table)
    figures = {
        "latency": latency_figure(measurement, objective_ms=objective_ms),
        "course": course_figure(measurement, objective_ms=objective_ms),
        "stages": stages_figure(stages),
    }
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png", measurement.conditions)
    pictures = {name: (folder / f"{name}.png").read_bytes() for name in figures}
    with replacing(folder / "report.html") as temporary:
        temporary.write_text(to_html(measurement, table, stages, pictures), encoding="utf-8")
    return to_text(measurement, table)


def to_text(measurement: Measurement, table: pd.DataFrame) -> str:
    """Return conditions, a row a kind of request, what the server counted, and every error."""
    conditions = "\n".join(f"{name}: {value}" for name, value in measurement.conditions.items())
    tables = [_plain(found) for found in (_readable(table), measurement.stages, errors(measurement)) if len(found)]
    return "\n\n".join(filter(None, [conditions, *tables, note_on(measurement), *warnings_of(table)]))


def warnings_of(table: pd.DataFrame) -> list[str]:
    """Say what the reader must know before believing the numbers."""
    lag_ms = table["lag_p99_ms"].max()
    if lag_ms <= LATE_MS:
        return []
    return [
        f"Of the requests, 1 % left more than {lag_ms:.0f} ms late: this load generator has not enough processor time. "
        "The lateness is part of the latencies; divide the load among more workers (--processes)."
    ]


def note_on(measurement: Measurement) -> str:
    """Say what the server's counters cannot tell of these models."""
    if "python" not in measurement.conditions.get("model", ""):
        return ""
    return (
        "This project's Python models take requests over at once and compute them in threads of their own, which the "
        "Triton server does not see: for them compute is the hand-over alone, and computing is part of the rest."
    )


def to_html(measurement: Measurement, table: pd.DataFrame, stages: pd.DataFrame, pictures: dict[str, bytes]) -> str:
    """Return the page; pictures are inside it."""
    conditions = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in measurement.conditions.items()
    )
    images = {name: base64.b64encode(png).decode() for name, png in pictures.items()}
    failed = errors(measurement)
    body = [
        f"<dl>{conditions}</dl>",
        *(f'<p class="warning">{html.escape(text)}</p>' for text in warnings_of(table)),
        "<h2>What the clients saw</h2>",
        _html(_readable(table)),
        _image(images["latency"], "latency by percentile"),
        "<h2>Where the time went</h2><p>Means in milliseconds of each kind of request: queue and compute as the server "
        f"counts them; the rest is transport and client. {html.escape(note_on(measurement))}</p>",
        _html(stages.rename_axis("requests").reset_index()),
        _image(images["stages"], "mean latency by stage"),
        "<p>What the server counted, model by model.</p>",
        _html(measurement.stages),
        "<h2>The course of the run</h2>",
        _image(images["course"], "rates, requests in flight and latency over time"),
        f"<h2>Errors</h2>{_html(failed) if len(failed) else '<p>None.</p>'}",
    ]
    return _PAGE.format(body="\n".join(body))


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The columns a person looks for; summary.csv has them all."""
    objective_ms = table["objective_ms"].iloc[0]
    names = {"images_per_s": "images/s", "goodput_per_s": f"images/s within {objective_ms:g} ms"}
    shown = table.drop(columns=["objective_ms", "mean_ms", "lag_p99_ms"]).rename(columns=names)
    return shown.rename(columns=lambda name: name.replace("_ms", " ms"))


def _plain(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format="{:.1f}".format, max_colwidth=120)


def _html(table: pd.DataFrame) -> str:
    return table.to_html(index=False, float_format="{:.2f}".format, border=0, escape=True)


def _image(encoded: str, description: str) -> str:
    return f'<img alt="{description}" src="data:image/png;base64,{encoded}">'


def main(config: ReportConfig) -> None:
    print(write_report(Measurement.read(config.folder), config.folder, objective_ms=config.objective_ms))


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ReportConfig)), also=(KeyError, ValueError))
