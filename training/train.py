"""The training loop.

    python -m training.train --manifest data/synthetic/manifest.csv --out runs/train
    python -m training.train --recipe modern --manifest data/ffhq/manifest.csv data/utkface/manifest.csv --out runs/two

Run the same command again to continue: a run that was stopped, by Ctrl-C or by kill -9, ends with the weights of an
unbroken one.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from contract.samples import ManifestError, Role, load_samples
from training.checkpoint import BEST_NAME, Checkpoint, save_checkpoint
from training.config import TrainConfig
from training.dataset import Batch, PackedFaces, loader, shuffled_loader
from training.history import EpochMetrics, EpochSums, history_row, write_history
from training.losses import Losses, LossWeights, MultiTaskLoss, balancing_weights
from training.model import AgeGenderNet, Logits
from training.plots import plot_history
from training.preprocess import Preprocess
from training.recipes import parse_config
from training.report import write_report
from training.state import STATE_NAME, Progress, RunState, StateError, plain

STEPS_BETWEEN_CHECKS = 50  # on a GPU, looking at a loss waits for the device


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or NaN; the message names the faces of that batch."""


@dataclass
class Stopwatch:
    """Seconds an epoch took, and of them those spent on gathering and augmenting batches."""

    started: float = field(default_factory=time.perf_counter)
    data_s: float = 0.0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the wait for each counts as data."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.data_s += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    @property
    def total_s(self) -> float:
        return time.perf_counter() - self.started


class FiniteCheck:
    """Stops at the first loss that is not finite, looking only now and then where looking is dear."""

    def __init__(self, faces: PackedFaces, device: torch.device) -> None:
        self.faces = faces
        self.every = STEPS_BETWEEN_CHECKS if device.type == "cuda" else 1
        self.unseen: list[tuple[int, Tensor, Tensor]] = []  # batch number, loss, positions of its faces

    def add(self, number: int, loss: Tensor, positions: Tensor) -> None:
        self.unseen.append((number, loss.detach(), positions))
        if len(self.unseen) >= self.every:
            self.look()

    def look(self) -> None:
        """Raise NonFiniteLossError if one of the losses since the last look was not finite."""
        if not self.unseen:
            return
        finite = torch.stack([loss for _, loss, _ in self.unseen]).isfinite().tolist()
        if not all(finite):
            number, loss, positions = self.unseen[finite.index(False)]
            ids = ", ".join(self.faces.names(positions.tolist()))
            raise NonFiniteLossError(
                f"the loss of batch {number} is {loss.item()}; nothing of it was saved. Look at its faces ({ids}), or "
                "run again with a lower --learning-rate and --restart"
            )
        self.unseen.clear()


class Trainer:
    """One run: its data, its network and everything that changes while it trains."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.device = _device(config)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and _multiplies_bf16(self.device))
        self.train_faces, self.selection_faces = self._faces("train"), self._faces("selection")
        self.preprocess = Preprocess(config.resolution).to(self.device)
        weights = LossWeights(config.age_weight, config.gender_weight, config.emotion_weight)
        balance = balancing_weights(self.train_faces.labels.emotion, config.emotion_balance).to(self.device)
        self.loss = MultiTaskLoss(weights, config.emotion_smoothing, balance if config.emotion_balance else None)
        self.selection_loss = MultiTaskLoss(weights)  # the same whatever trains, so that runs can be compared
        self.state = self._fresh_state()
        self.last_save_s = time.perf_counter()
        self.stop_requested = False

    def _faces(self, role: Role) -> PackedFaces:
        return PackedFaces([load_samples(manifest, role, self.config.protocol) for manifest in self.config.manifest])

    def _fresh_state(self) -> RunState:
        config = self.config
        torch.manual_seed(config.seed)
        network = AgeGenderNet()
        if config.quick_start:
            network.start_quickly(median_age_years=_median(self.train_faces.labels.age))
        # NHWC is what oneDNN's and cuDNN's fast convolutions read.
        network = network.to(self.device).to(memory_format=torch.channels_last)
        optimizer = _optimizer(network, config)
        average = None
        if config.average_decay:
            # Batch-norm statistics too, which otherwise would not belong to the averaged weights.
            ema = get_ema_multi_avg_fn(config.average_decay)  # type: ignore[no-untyped-call]
            average = AveragedModel(network, multi_avg_fn=ema, use_buffers=True)
        return RunState(network, optimizer, self._scheduler(optimizer), average, Progress())

    def _scheduler(self, optimizer: Optimizer) -> LRScheduler:
        config = self.config
        if config.schedule == "plateau":
            return ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=config.plateau_patience)
        steps = config.epochs * len(self._shuffled(seed=0))
        return OneCycleLR(optimizer, config.learning_rate, total_steps=steps, pct_start=config.warm_up_share)

    def _shuffled(self, *, seed: int, skip_batches: int = 0) -> DataLoader[Batch]:
        config = self.config
        return shuffled_loader(
            self.train_faces,
            config.batch_size,
            self.device,
            seed=seed,
            repeat=config.repeat,
            skip_batches=skip_batches,
        )

    def run(self) -> None:
        """Train until the last epoch or until the selection loss has stopped improving; KeyboardInterrupt is saved."""
        progress, config = self.state.progress, self.config
        if (config.out / STATE_NAME).exists():
            self.state.load(config, self.device)
            print(f"continuing {config.out} at epoch {progress.epoch + 1}, batch {progress.batch}")
        before = signal.signal(signal.SIGINT, self._request_stop)
        try:
            with SummaryWriter(str(config.out / "tensorboard"), purge_step=progress.epoch + 1) as board:
                while progress.epoch < config.epochs and not self._stopped_improving():
                    for name, value in self._epoch().items():
                        board.add_scalar(name, value, progress.epoch)
        finally:
            signal.signal(signal.SIGINT, before)

    @property
    def _halved(self) -> bool:
        """Whether the epoch at hand is one of those at half resolution."""
        return self.state.progress.epoch < round(self.config.half_resolution_share * self.config.epochs)

    def _request_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.stop_requested = True  # after the batch at hand, whose weights would otherwise be half updated
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C does not wait

    def _stopped_improving(self) -> bool:
        progress = self.state.progress
        return progress.epoch - progress.best_epoch >= self.config.early_stopping_patience

    def _epoch(self) -> dict[str, float]:
        """Train and validate once; afterwards everything is on disk."""
        state, progress, config = self.state, self.state.progress, self.config
        stopwatch, first_batch, halved = Stopwatch(), progress.batch, self._halved
        train = self._train_epoch(stopwatch)
        seconds, images = stopwatch.total_s, (progress.batch - first_batch) * config.batch_size
        selection = self._validate()
        progress.finish_epoch()
        row = history_row(
            epoch=progress.epoch,
            learning_rate=state.optimizer.param_groups[0]["lr"],
            train=train,
            selection=selection,
            images_per_s=images / seconds,
            data_share=stopwatch.data_s / seconds,
        )
        progress.history.append(row)
        if isinstance(state.scheduler, ReduceLROnPlateau):
            state.scheduler.step(selection.loss)
        if halved or selection.loss < progress.best_loss:
            # No epoch at half resolution stands in the way of a later one at the full: it is only kept meanwhile.
            progress.best_loss, progress.best_epoch = (float("inf") if halved else selection.loss), progress.epoch
            best = Checkpoint(state.answering, config.resolution, plain(config), row)
            save_checkpoint(config.out / BEST_NAME, best)
        self._save()
        write_history(progress.history, config.out)
        if progress.epoch % config.plot_every == 0:
            plot_history(config.out, f"epoch_{progress.epoch}")
        _print_epoch(row, config.epochs)
        return row

    def _train_epoch(self, stopwatch: Stopwatch) -> EpochMetrics:
        progress, config = self.state.progress, self.config
        # An epoch's order, augmentation and dropout depend on seed and epoch alone, so it can be broken off and redone.
        epoch_seed = int(np.random.SeedSequence((config.seed, progress.epoch)).generate_state(1)[0])
        torch.manual_seed(epoch_seed)
        if progress.random_state is not None:
            _set_random_state(self.device, progress.random_state)
        sums = EpochSums(self.device, progress.epoch_sums)
        finite = FiniteCheck(self.train_faces, self.device)
        batches = self._shuffled(seed=epoch_seed, skip_batches=progress.batch)
        self.state.network.train()
        total = progress.batch + len(batches)
        with tqdm(
            total=total, initial=progress.batch, desc=f"epoch {progress.epoch + 1}", unit="batch", leave=False
        ) as bar:
            for batch in stopwatch.timed(iter(batches)):
                loss = self._step(batch.to(self.device), sums, stopwatch)
                progress.batch += 1
                finite.add(progress.batch, loss, batch.positions)
                bar.update()
                if self.stop_requested or time.perf_counter() - self.last_save_s > config.save_every_s:
                    finite.look()
                    progress.epoch_sums, progress.random_state = sums.sums, _random_state(self.device)
                    self._save()
                if self.stop_requested:
                    raise KeyboardInterrupt
        finite.look()
        return sums.means()

    def _step(self, batch: Batch, sums: EpochSums, stopwatch: Stopwatch) -> Tensor:
        state, before = self.state, time.perf_counter()
        faces = self._network_input(self.config.augmentation(self.preprocess.cast(batch.images)))
        stopwatch.data_s += time.perf_counter() - before
        losses = self._mixed(faces, batch, sums) if self.config.mixup else self._plain(faces, batch, sums)
        state.optimizer.zero_grad()
        losses.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), self.config.max_grad_norm)
        state.optimizer.step()
        if isinstance(state.scheduler, OneCycleLR):
            state.scheduler.step()
        if state.average:
            state.average.update_parameters(state.network)
        return losses

    def _network_input(self, faces: Tensor) -> Tensor:
        """float32 [B, 3, 128, 128] in 0..1 -> what the network sees, at half the resolution in the first epochs."""
        faces = self.preprocess.standardise(F.avg_pool2d(faces, 2) if self._halved else faces)
        return faces.contiguous(memory_format=torch.channels_last)

    def _plain(self, faces: Tensor, batch: Batch, sums: EpochSums) -> Tensor:
        logits = self._forward(self.state.network, faces)
        losses = self.loss(logits, batch)
        sums.add(logits, batch, losses)
        return losses.total

    def _mixed(self, faces: Tensor, batch: Batch, sums: EpochSums) -> Tensor:
        """Mixup (Zhang et al. 2018) by mixing the losses, so that a label only one of the two has still counts."""
        share = float(np.random.default_rng(int(torch.randint(2**31, ()))).beta(self.config.mixup, self.config.mixup))
        order = torch.randperm(len(faces)).to(faces.device)
        logits = self._forward(self.state.network, torch.lerp(faces[order], faces, share))
        partners = Batch(*(tensor[order] for tensor in batch))
        own, other = self.loss(logits, batch), self.loss(logits, partners)
        losses = Losses(*(share * a + (1 - share) * b for a, b in zip(own, other, strict=True)))
        sums.add(logits, batch, losses)
        return losses.total

    def _forward(self, network: AgeGenderNet, faces: Tensor) -> Logits:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return network(faces)

    @torch.inference_mode()
    def _validate(self) -> EpochMetrics:
        network = self.state.answering.eval()
        sums = EpochSums(self.device)
        batches = loader(self.selection_faces, self.config.batch_size, self.device)
        for batch in tqdm(batches, desc="selection", unit="batch", leave=False):
            on_device = batch.to(self.device)
            logits = self._forward(network, self._network_input(self.preprocess.cast(on_device.images)))
            sums.add(logits, on_device, self.selection_loss(logits, on_device))
        return sums.means()

    def _save(self) -> None:
        self.state.save(self.config)
        self.last_save_s = time.perf_counter()


def train(config: TrainConfig) -> None:
    """Train, then report. Raises ManifestError, StateError or NonFiniteLossError; KeyboardInterrupt when stopped."""
    if config.restart:
        shutil.rmtree(config.out, ignore_errors=True)
    trainer = Trainer(config)
    precision = "bf16" if trainer.bf16 else "fp32"
    print(
        f"AgeGenderNet at {config.resolution} x {config.resolution}, {len(trainer.train_faces):,} faces to train on, "
        f"{len(trainer.selection_faces):,} to select on; {trainer.device}, {precision}"
    )
    trainer.run()
    write_report(config.out, config.manifest, device=trainer.device)


def _optimizer(network: AgeGenderNet, config: TrainConfig) -> Optimizer:
    if config.optimizer == "adam":
        return Adam(network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True)
    # Decay pulls on what multiplies features, not on biases and batch-norm parameters.
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, config.learning_rate, fused=True)


def _median(ages: NDArray[np.float32]) -> float:
    """Of the known ages in years; any start will do where none is known."""
    return float(np.nanmedian(ages)) if not np.isnan(ages).all() else 30.0


def _device(config: TrainConfig) -> torch.device:
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state.cpu(), device)
    else:
        torch.set_rng_state(state)


def _print_epoch(row: dict[str, float], epochs: int) -> None:
    print(
        f"epoch {row['epoch']:.0f}/{epochs}: loss {row['train_loss']:.3f}, selection {row['selection_loss']:.3f}, "
        f"age MAE {row['selection_age_mae_years']:.2f} years, gender {row['selection_gender_accuracy']:.1%}, "
        f"emotion {row['selection_emotion_accuracy']:.1%}; {row['images_per_s']:.0f} images/s, "
        f"data {row['data_share']:.1%} of the time"
    )


if __name__ == "__main__":
    try:
        train(parse_config())
    except (ManifestError, StateError, NonFiniteLossError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped; the same command continues from here", file=sys.stderr)
        sys.exit(130)
