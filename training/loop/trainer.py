"""The training loop: epochs of steps and a validation, saved so that a run can be broken off anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from contract.samples import Role, load_samples
from training.batches.dataset import Batches, PackedFaces, Positions, Targets, in_order, shuffled
from training.batches.prefetch import batches_on
from training.config import SettingsError, TrainConfig
from training.loop.hardware import multiplies_bf16
from training.loop.history import EpochMetrics, EpochSums, Stopwatch, epoch_line, history_row, write_history
from training.loop.interruption import FiniteCheck, NonFiniteLossError, StopRequest
from training.loop.losses import LossWeights, MultiTaskLoss
from training.loop.plots import plot_history
from training.loop.state import STATE_NAME, RunState, StateError, plain
from training.loop.step import TrainingStep, training_forward
from training.network.checkpoint import BEST_NAME, Checkpoint, save_checkpoint
from training.network.distributed import ALONE, Ranks, local_device
from training.network.preprocess import Preprocess, TrainingPreprocess

# On a GPU, looking at a loss waits for the device, and asking the other ranks for the host.
BATCHES_BETWEEN_LOOKS_ON_GPU = 50


class Trainer:
    """One run: its data, its network and everything that changes while it trains."""

    def __init__(self, config: TrainConfig, ranks: Ranks = ALONE, device: torch.device | None = None) -> None:
        self.config, self.ranks = config, ranks
        self.device = device or local_device(config.device)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and multiplies_bf16(self.device))
        self.train_faces, self.selection_faces = self._faces("train"), self._faces("selection")
        _check_shares(len(self.shuffled(0)[0]), ranks)
        self.preprocess = TrainingPreprocess(Preprocess(config.resolution).to(self.device))
        self.state = RunState.fresh(
            config,
            self.device,
            ranks,
            median_age_years=_median(self.train_faces.labels.age),
            batches_per_epoch=len(self.shuffled(0)),
        )
        self.stop = StopRequest(patient=ranks.count > 1)
        self.last_save_s = time.perf_counter()

    def _faces(self, role: Role) -> PackedFaces:
        return PackedFaces([load_samples(manifest, role, self.config.protocol) for manifest in self.config.manifest])

    def shuffled(self, epoch: int) -> list[Positions]:
        """Return the faces of each of an epoch's batches."""
        config = self.config
        return shuffled(self.train_faces, config.batch_size, seed=(config.seed, epoch), repeat=config.repeat)

    def prepared(self, batches: Batches, *, first: int = 0, side_px: int) -> Iterator[tuple[Tensor, Targets]]:
        """Yield what a step takes, of each batch from number `first` on."""
        for batch in batches_on(self.device, batches, first=first):
            yield self.step.prepare(batch, side_px=side_px)

    @cached_property
    def step(self) -> TrainingStep:
        config = self.config
        return TrainingStep(
            config,
            self.state,
            MultiTaskLoss(_loss_weights(config)),
            self.preprocess,
            training_forward(self.state, config, self.device, self.ranks, bf16=self.bf16),
            self.bf16,
            self.ranks,
        )

    def run(self) -> None:
        """Train until the last epoch or until the selection loss has stopped improving; KeyboardInterrupt is saved."""
        progress, config = self.state.progress, self.config
        self._continue()
        board = (
            SummaryWriter(str(config.out / "tensorboard"), purge_step=progress.epoch + 1) if self.ranks.main else None
        )
        try:
            with self.stop.listening():
                while progress.epoch < config.epochs and not self._stopped_improving():
                    for name, value in self._epoch().items():
                        if board:
                            board.add_scalar(name, value, progress.epoch)
        finally:
            if board:
                board.close()

    def _continue(self) -> None:
        """Load what an earlier run left, the same on every rank."""
        progress, config = self.state.progress, self.config
        if (config.out / STATE_NAME).exists():
            self.state.load(config, self.device)
            if self.ranks.main:
                print(f"continuing {config.out} at epoch {progress.epoch + 1}, batch {progress.batch}")
        if not self.ranks.same((progress.epoch, progress.batch)):
            raise StateError(f"{config.out} is not the same on all machines; put --out where all of them see it")

    @property
    def side_px(self) -> int:
        """Return the network resolution of the epoch at hand."""
        return self.config.resolution_of(self.state.progress.epoch)

    def _stopped_improving(self) -> bool:
        progress = self.state.progress
        return progress.epoch - progress.best_epoch >= self.config.early_stopping_patience

    def _epoch(self) -> dict[str, float]:
        """Train and validate once; afterwards everything is on disk."""
        state, progress, config = self.state, self.state.progress, self.config
        _ = self.step  # compiled, where asked for, before the clock starts
        stopwatch, first_batch, side_px = Stopwatch(), progress.batch, self.side_px
        train = self._train_epoch(stopwatch)
        seconds, images = stopwatch.total_s, (progress.batch - first_batch) * config.batch_size
        selection = self._validate()
        progress.finish_epoch()
        row = history_row(
            epoch=progress.epoch,
            resolution=side_px,
            learning_rate=state.optimizer.param_groups[0]["lr"],
            train=train,
            selection=selection,
            images_per_s=images / seconds,
            data_share=stopwatch.data_s / seconds,
        )
        progress.history.append(row)
        if isinstance(state.scheduler, ReduceLROnPlateau):
            state.scheduler.step(selection.loss)
        # An epoch at another resolution than the last one's is the best until a later one ends: they do not compare.
        low = side_px != config.resolution
        best = low or selection.loss < progress.best_loss
        if best:
            progress.best_loss, progress.best_epoch = (float("inf") if low else selection.loss), progress.epoch
        if self.ranks.main:
            self._write_epoch(row, best=best)
        return row

    def _write_epoch(self, row: dict[str, float], *, best: bool) -> None:
        config, progress = self.config, self.state.progress
        if best:
            checkpoint = Checkpoint(self.state.network, config.resolution, plain(config), row)
            save_checkpoint(config.out / BEST_NAME, checkpoint)
        self._save()
        write_history(progress.history, config.out)
        if progress.epoch % config.plot_every == 0:
            plot_history(config.out, f"epoch_{progress.epoch}")
        print(epoch_line(row, config.epochs))

    def _train_epoch(self, stopwatch: Stopwatch) -> EpochMetrics:
        progress, config = self.state.progress, self.config
        # An epoch's order and all that is random in a step depend on seed, epoch and batch alone: they can be redone.
        seed = (config.seed, progress.epoch)
        sums = EpochSums(self.device, progress.epoch_sums if self.ranks.main else None)
        batches = Batches(self.train_faces, self.shuffled(progress.epoch), self.ranks, seed)
        finite = FiniteCheck()
        self.state.network.train()
        with self._bar(f"epoch {progress.epoch + 1}", len(batches), progress.batch) as bar:
            prepared = self.prepared(batches, first=progress.batch, side_px=self.side_px)
            for faces, targets in stopwatch.timed(prepared):
                loss = self.step(faces, targets, sums, seed=(*seed, progress.batch))
                finite.add(progress.batch, loss)
                progress.batch += 1
                bar.update()
                if progress.batch % self._batches_between_looks == 0 or progress.batch == len(batches):
                    self._look(finite, batches, sums)
        return sums.means(_loss_weights(config), self.ranks)

    @property
    def _batches_between_looks(self) -> int:
        return BATCHES_BETWEEN_LOOKS_ON_GPU if self.device.type == "cuda" else 1

    def _look(self, finite: FiniteCheck, batches: Batches, sums: EpochSums) -> None:
        """Do what all ranks must do together: end at a loss that is not finite, stop, save."""
        progress, broken = self.state.progress, finite.first_broken()
        save_due = time.perf_counter() - self.last_save_s > self.config.save_every_s
        # One exchange for all three. The ranks may have broken batches of their own; the earliest is wanted, which is
        # the one with the most batches from it to the end (0: none is broken).
        batches_from_broken = 0 if broken is None else len(batches) - broken
        batches_from_broken, stop, save = self.ranks.maximum(batches_from_broken, self.stop.made, save_due)
        if batches_from_broken:
            self._refuse(batches, len(batches) - batches_from_broken)
        if stop or save:
            progress.epoch_sums = self.ranks.sum(sums.sums)
            if self.ranks.main:
                self._save()
            self.last_save_s = time.perf_counter()
        if stop:
            raise KeyboardInterrupt

    def _refuse(self, batches: Batches, number: int) -> NoReturn:
        names = ", ".join(self.train_faces.names(batches.positions[number]))
        raise NonFiniteLossError(
            f"the loss of batch {number + 1} is not finite; nothing of it was saved. Look at its faces "
            f"({names}), or run again with a lower --learning-rate and --restart"
        )

    @torch.inference_mode()
    def _validate(self) -> EpochMetrics:
        network = self.state.network.eval()
        self.ranks.share_statistics(network)
        loss = MultiTaskLoss(_loss_weights(self.config))  # the same whatever trains, so that runs can be compared
        sums = EpochSums(self.device)
        batches = Batches(self.selection_faces, in_order(self.selection_faces, self.config.batch_size), self.ranks)
        with self._bar("selection", len(batches)) as bar:
            for batch in batches_on(self.device, batches):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    logits = network(self.preprocess(batch.images, side_px=self.side_px))
                sums.add(logits, batch.targets, loss(logits, batch.targets))
                bar.update()
        return sums.means(_loss_weights(self.config), self.ranks)

    def _bar(self, title: str, batches: int, done: int = 0) -> tqdm[NoReturn]:
        return tqdm(total=batches, initial=done, desc=title, unit="batch", leave=False, disable=not self.ranks.main)

    def _save(self) -> None:
        self.state.save(self.config)
        self.last_save_s = time.perf_counter()


def _loss_weights(config: TrainConfig) -> LossWeights:
    return LossWeights(config.age_weight, config.gender_weight, config.emotion_weight)


def _check_shares(batch_size: int, ranks: Ranks) -> None:
    if batch_size % ranks.count:
        raise SettingsError(
            f"a batch of {batch_size} faces cannot be shared equally by {ranks.count} ranks; change --batch-size"
        )


def _median(ages: NDArray[np.float32]) -> float:
    """Of the known ages in years; any start will do where none is known."""
    return float(np.nanmedian(ages)) if not np.isnan(ages).all() else 30.0
