"""How fast training is on this hardware, and what it waits for: real steps under torch's profiler.

    python -m training.profile --manifest data/ffhq/manifest.csv --resolution 128 --first-resolutions 64 --steps 50
    python -m training.profile --manifest data/ffhq/manifest.csv --compile --csv speed.csv --trace trace.json

Takes every setting of training.train. Images/s are of steps without the profiler, the shares of as many with it. A
run of several resolutions is measured at each. Nothing is trained that stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import tyro
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from contract import program
from contract.files import replacing
from training.batches.dataset import GATHER, Batches
from training.config import TrainConfig
from training.loop.hardware import device_name, peak_memory_gib, peak_share
from training.loop.history import EpochSums
from training.loop.step import AUGMENT
from training.loop.trainer import Trainer
from training.network.distributed import Ranks, local_device, started_ranks
from training.recipes import recipe_of


@dataclass(frozen=True)
class ProfileConfig:
    """Measure training steps; the settings of training.train say what a step is."""

    train: Annotated[TrainConfig, tyro.conf.arg(name="")]
    steps: int = 30  # of each kind: without the profiler, then with it
    warm_up_steps: int = 10  # not measured: kernels are chosen, memory is taken
    csv: Path | None = None  # a row for each resolution, after those that the file has
    trace: Path | None = None  # also write a Chrome trace, for https://ui.perfetto.dev


@dataclass(frozen=True)
class Conditions:
    """Whatever a measurement depends on."""

    device: str
    ranks: int
    torch: str
    recipe: str
    side_px: int  # of what the network sees
    batch_size: int  # of all ranks
    precision: str
    compiled: bool
    steps: int


@dataclass(frozen=True)
class Measured:
    """One resolution's steps; None is not known, or not a question on this device."""

    conditions: Conditions
    images_per_s: float  # of all ranks
    step_ms: float
    data_share: float  # of the time: gathering and augmenting; on a GPU, augmenting on the device
    device_busy_share: float | None  # of the time that a kernel ran on the GPU
    bf16_peak_share: float | None
    peak_memory_gib: float

    def row(self) -> dict[str, Any]:
        """Return a row of a CSV: the conditions, then what was measured."""
        measured = asdict(self)
        return {**measured.pop("conditions"), **measured}


def measure(trainer: Trainer, config: ProfileConfig, *, side_px: int) -> Measured:
    """Run and time steps of the trainer at one of its resolutions."""
    steps, train, device = config.steps, trainer.config, trainer.device
    positions = list(islice(cycle(trainer.shuffled(0)), config.warm_up_steps + 2 * steps))
    prepared = trainer.prepared(Batches(trainer.train_faces, positions, trainer.ranks, (train.seed,)), side_px=side_px)
    sums = EpochSums(device)

    def run(count: int) -> float:
        """Seconds that so many steps took, until the device was done."""
        _synchronise(device)
        started = time.perf_counter()
        for number, (faces, targets) in enumerate(islice(prepared, count)):
            trainer.step(faces, targets, sums, seed=(train.seed, number))
        _synchronise(device)
        return time.perf_counter() - started

    trainer.state.network.train()
    run(config.warm_up_steps)
    seconds = run(steps)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        profiled_s = run(steps)
    if config.trace and trainer.ranks.main:
        profiler.export_chrome_trace(str(config.trace.with_stem(f"{config.trace.stem}_{side_px}")))
    conditions, images_per_s = _conditions(trainer, steps, side_px), steps * train.batch_size / seconds
    return Measured(
        conditions,
        images_per_s,
        step_ms=1000 * seconds / steps,
        data_share=_data_us(profiler, device) / (1e6 * profiled_s),
        device_busy_share=_device_busy_share(profiler) if device.type == "cuda" else None,
        bf16_peak_share=peak_share(
            images_per_s / trainer.ranks.count, side_px=conditions.side_px, device=conditions.device
        ),
        peak_memory_gib=peak_memory_gib(device),
    )


def _conditions(trainer: Trainer, steps: int, side_px: int) -> Conditions:
    train = trainer.config
    return Conditions(
        device=device_name(trainer.device),
        ranks=trainer.ranks.count,
        torch=torch.__version__,
        recipe=train.recipe,
        side_px=side_px,
        batch_size=train.batch_size,
        precision="bf16" if trainer.bf16 else "fp32",
        compiled=trainer.step.compiled,
        steps=steps,
    )


def busy_share(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the part of the time from the first start to the last end that at least one interval covers."""
    ordered = sorted(intervals)
    if not ordered:
        return 0.0
    busy, begin, end = 0.0, ordered[0][0], ordered[0][0]
    for start, stop in ordered:
        busy += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return busy / (end - begin) if end > begin else 0.0


def _data_us(profiler: profile, device: torch.device) -> float:
    of = {event.key: event for event in profiler.key_averages() if event.device_type == DeviceType.CPU}
    if device.type == "cuda":
        return of[AUGMENT].device_time_total  # a thread gathers meanwhile
    return of[AUGMENT].cpu_time_total + of[GATHER].cpu_time_total


def _device_busy_share(profiler: profile) -> float:
    """Of kernels: copies run beside them and do not count."""
    return busy_share(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()  # type: ignore[no-untyped-call]
        if event.device_type == DeviceType.CUDA
        and not event.is_user_annotation
        and not event.name.startswith(("Memcpy", "Memset"))
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(measured: Sequence[Measured]) -> str:
    """Lay the measurements out side by side, a line a field."""
    rows = [one.row() for one in measured]
    columns = [[_shown(name, value) for name, value in row.items()] for row in rows]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        f"{name:<18}" + "".join(f"  {column[i]:>{width}}" for column, width in zip(columns, widths, strict=True))
        for i, name in enumerate(rows[0])
    )


def _shown(name: str, value: object) -> str:
    if value is None:
        return "unknown" if name == "bf16_peak_share" else "-"
    if isinstance(value, float):
        return f"{value:.1%}" if name.endswith("share") else f"{value:.4g}"
    return str(value)


def _append(measured: Sequence[Measured], path: Path) -> None:
    earlier = [pd.read_csv(path)] if path.exists() else []
    with replacing(path) as temporary:
        pd.concat([*earlier, pd.DataFrame([one.row() for one in measured])]).to_csv(temporary, index=False)


def run_profile(config: ProfileConfig, ranks: Ranks, device: torch.device) -> list[Measured]:
    """Measure each resolution that the settings train at."""
    train = config.train
    sides = sorted({train.resolution_of(epoch) for epoch in range(train.epochs)})
    trainer = Trainer(train, ranks, device)
    return [measure(trainer, config, side_px=side) for side in sides]


def main(config: ProfileConfig) -> None:
    device = local_device(config.train.device)
    with started_ranks(device) as ranks:
        rows = run_profile(config, ranks, device)
    if ranks.main:
        print(table(rows))
        if config.csv:
            _append(rows, config.csv)
            print(f"wrote {config.csv}")


def parse(arguments: Sequence[str] | None = None) -> ProfileConfig:
    return tyro.cli(ProfileConfig, default=ProfileConfig(recipe_of(arguments)), args=arguments)


if __name__ == "__main__":
    program.run(lambda: main(parse()))
