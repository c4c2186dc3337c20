"""Train AgeGenderNet and report.

    python -m training.train --manifest data/synthetic/manifest.csv --out runs/train
    python -m training.train --recipe modern --manifest data/ffhq/manifest.csv data/utkface/manifest.csv --out runs/two
    torchrun --nproc-per-node 2 -m training.train --manifest data/ffhq/manifest.csv --out runs/two-gpus

Run the same command again to continue: a run that was stopped, by Ctrl-C or by kill -9, ends with the weights of an
unbroken one.
"""

from __future__ import annotations

import shutil

from contract import program
from training.config import TrainConfig
from training.loop.trainer import Trainer
from training.network.distributed import Ranks, is_main_process, local_device, started_ranks
from training.recipes import parse_config
from training.report import write_report


def train(config: TrainConfig) -> None:
    """Train, on all ranks that torchrun started, then report.

    Raises ManifestError, CheckpointError, SettingsError, StateError or NonFiniteLossError; KeyboardInterrupt when
    stopped.
    """
    device = local_device(config.device)
    with started_ranks(device) as ranks:
        if config.restart:
            if ranks.main:
                shutil.rmtree(config.out, ignore_errors=True)
            ranks.wait()
        trainer = Trainer(config, ranks, device)
        if ranks.main:
            print(_introduction(trainer, ranks))
        trainer.run()
    if ranks.main:
        write_report(config.out, config.manifest, device=device)


def _introduction(trainer: Trainer, ranks: Ranks) -> str:
    side, precision = trainer.config.resolution, "bf16" if trainer.bf16 else "fp32"
    return (
        f"AgeGenderNet at {side} x {side}, {len(trainer.train_faces):,} faces to train on, "
        f"{len(trainer.selection_faces):,} to select on; {trainer.device.type}, {precision}"
        + (f", {ranks.count} ranks" if ranks.count > 1 else "")
    )


if __name__ == "__main__":
    program.run(
        lambda: train(parse_config()), stopped="stopped; the same command continues from here", say=is_main_process()
    )
