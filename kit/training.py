"""The loop that turns images into weights; the only module that imports Lightning.

Whatever is random (order, augmentation, the detector's own sampling) is a function of (seed, epoch, step,
image), and checkpoints are written where an epoch ends: a kill costs at most one epoch and changes nothing.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import warnings
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint, TQDMProgressBar
from pytorch_lightning.callbacks.weight_averaging import WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision

from kit.config import Config, TrainingConfig
from kit.core.errors import KitError
from kit.core.files import remove_partials, replacing, write_text
from kit.data.competition import TrainingData
from kit.data.dataset import Batch, DetectionDataset, EpochSampler, loader
from kit.detectors.checkpoints import load_checkpoint
from kit.detectors.hardware import devices, in_words, on_gpu, precision
from kit.detectors.memory import keeping_freed_memory, laid_out
from kit.detectors.networks import network_input
from kit.loss_check import BadLoss, LossCheck
from kit.resume import PROGRESS, resume_state
from kit.runs.folder import HISTORY_COLUMNS, Run, Split
from kit.schedule import accumulation, learning_rate, loss_factor, patience_ended

_GPU_WORKERS = 4
_PREFIX = "detector."
_EMA_RAMP = 10
log = logging.getLogger("kit")


def fit(run: Run, config: Config, split: Split, data: TrainingData, detector: nn.Module) -> None:
    """Train until the last epoch or until patience ends, going on from ``last.ckpt`` where there is one.

    ``run`` names its fold where there are several. ``detector`` has its starting weights, which matter only
    where there is no ``last.ckpt``. Leaves ``best.ckpt``, ``last.ckpt``, ``history.csv`` and TensorBoard logs
    in ``run.home``.
    Raises KitError for a batch that does not divide, a non-finite loss, or a batch that does not fit.
    """
    settings = config.training
    processes = devices(config) * config.trainer.nodes
    window = accumulation(settings, processes)
    state = resume_state(run, detector)
    progress = Progress(run, settings)
    if state:
        progress.load_state_dict(state["callbacks"][progress.state_key])
        progress.write_history()
        if progress.ended:
            return
        log.info("run %s: going on from epoch %d of %d", run.title, progress.epochs + 1, settings.max_epochs)
    remove_partials(run.home)
    module = DetectionModule(detector, config, split, run.fold or 0, data, window, first_epoch=progress.epochs)
    ema = [_Ema(settings.ema_decay)] if settings.ema_decay else []
    bar = [TQDMProgressBar(leave=False)] if sys.stderr.isatty() else []
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        trainer = pl.Trainer(
            accelerator=config.trainer.accelerator,
            devices=devices(config),
            num_nodes=config.trainer.nodes,
            strategy="ddp" if processes > 1 else "auto",
            precision=precision(config),
            max_epochs=settings.max_epochs,
            accumulate_grad_batches=window,
            gradient_clip_val=settings.clip_norm or None,
            logger=TensorBoardLogger(run.home, name="tensorboard", version="", purge_step=module.first_step),
            callbacks=[*ema, *bar, progress],
            plugins=[_AtomicCheckpoints()],
            enable_checkpointing=True,
            enable_progress_bar=bool(bar),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=run.home,
        )
        device = "cuda" if on_gpu(config) else "cpu"
        knob = "training.batch_size (training.effective_batch keeps the recipe)"
        try:
            with keeping_freed_memory(device), in_words(settings.batch_size, config.model.image_size_px, knob):
                trainer.fit(module, ckpt_path=run.last if state else None)
        except SystemExit as error:  # Lightning turns Ctrl-C into an exit; tasks.py wants to say how to go on
            raise KeyboardInterrupt from error


class DetectionModule(pl.LightningModule):
    """A detector with its data, schedule and in-loop score, as Lightning wants them."""

    def __init__(
        self,
        detector: nn.Module,
        config: Config,
        split: Split,
        fold: int,
        data: TrainingData,
        window: int,
        first_epoch: int,
    ) -> None:
        super().__init__()
        self.detector = laid_out(detector)
        self._config, self._labels, self._window, self._first_epoch = config, split.labels, window, first_epoch
        size_px, seed = config.model.image_size_px, config.training.seed
        self._train = DetectionDataset(data, split.training(fold), size_px, seed, config.augmentation)
        self._validation = DetectionDataset(data, split.folds[fold], size_px, seed)
        self._score = MeanAveragePrecision(backend="faster_coco_eval")
        self._loss_check = LossCheck()
        self._boxes_lost = 0

    @property
    def first_step(self) -> int:
        """The optimiser step with which this attempt begins."""
        return self._first_epoch * self._steps_per_epoch(devices(self._config) * self._config.trainer.nodes)

    def train_dataloader(self) -> DataLoader[Any]:
        """The training images of this process."""
        seed = self._config.training.seed
        sampler = EpochSampler(len(self._train), seed, self.trainer.global_rank, self.trainer.world_size)
        sampler.set_epoch(self._first_epoch)  # Lightning makes its first iterator before it sets the epoch
        return self._loader(self._train, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation images of this process."""
        sampler = EpochSampler(len(self._validation), None, self.trainer.global_rank, self.trainer.world_size)
        return self._loader(self._validation, sampler)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; its rate is set before every step, as a function of the step alone."""
        settings = self._config.training
        weights = [weight for weight in self.detector.parameters() if weight.requires_grad]
        if settings.optimizer == "adamw":
            return torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        return torch.optim.SGD(
            weights, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the detector's own sampling by (seed, epoch, batch, rank)."""
        place = [self._config.training.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """The loss of one batch, scaled for its place in the accumulation window."""
        loss = torch.stack(list(self.detector(network_input(batch.images), _targets(batch)).values())).sum()
        self._loss_check.add(loss, batch.indices)
        self._boxes_lost += batch.lost  # logged at the end: a number logged here is sent to the GPU and waited for
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True,
                 batch_size=len(batch.images), sync_dist=True)  # fmt: skip
        share = math.ceil(len(self._train) / self.trainer.world_size)
        return loss * loss_factor(batch_idx, share, self._config.training.batch_size, self._window)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop at a non-finite loss (on the CPU before it reaches the weights); set the step's rate."""
        self._refuse(self._loss_check.verdict(self.global_step))
        for group in optimizer.param_groups:
            group["lr"] = self.rate

    def on_validation_start(self) -> None:
        """Stop at a non-finite loss of the epoch's last step before anything is made of the weights."""
        self._refuse(self._loss_check.last_verdict())

    def on_train_epoch_end(self) -> None:
        """Log how many boxes the augmentation lost in this epoch."""
        self.log("boxes_lost", float(self._boxes_lost), reduce_fx="sum", sync_dist=True)
        self._boxes_lost = 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect detections and truth of the plain view."""
        detections = self.detector(network_input(batch.images))
        # An image that wrapped round is handed in empty: the metric gathers the processes' images pair by pair.
        handed = [
            [one if counted else {name: rows[:0] for name, rows in one.items()} for one, counted in pairs]
            for pairs in (zip(each, batch.counted, strict=True) for each in (detections, _targets(batch)))
        ]
        self._score.update(*handed)

    def on_validation_epoch_end(self) -> None:
        """Log the in-loop mAP, which only picks the epoch."""
        scores = self._score.compute()
        self._score.reset()
        self.log("map50", scores["map_50"].float(), prog_bar=True, sync_dist=True, batch_size=1)
        self.log("map50_95", scores["map"].float(), sync_dist=True, batch_size=1)

    def _refuse(self, bad: BadLoss | None) -> None:
        if bad:
            names = ", ".join(self._train.image_ids[index] for index in bad.indices)
            raise KitError(
                "a finite training loss",
                f"epoch {self.current_epoch + 1}, step {bad.step}, images {names}",
                "look at these images and their boxes, or lower training.learning_rate; the run's last whole "
                "epoch is kept",
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the weights under the bare detector's names, with what is needed to rebuild it."""
        for key in ("state_dict", "current_model_state"):
            if key in checkpoint:
                weights = checkpoint[key]
                checkpoint[key] = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
        checkpoint["kit"] = {
            "model": asdict(self._config.model),
            "labels": list(self._labels),
            "epoch": self.current_epoch + 1,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the weights back the names that this module has for them."""
        for key in ("state_dict", "current_model_state"):
            if key in checkpoint:
                checkpoint[key] = {_PREFIX + name: tensor for name, tensor in checkpoint[key].items()}

    @property
    def rate(self) -> float:
        """The learning rate of the current step."""
        steps = self._steps_per_epoch(self.trainer.world_size)
        return learning_rate(self.global_step, steps, self._config.training)

    def _steps_per_epoch(self, processes: int) -> int:
        share = math.ceil(len(self._train) / processes)
        return math.ceil(share / self._config.training.batch_size / self._window)

    def _loader(self, dataset: DetectionDataset, sampler: EpochSampler) -> DataLoader[Any]:
        gpu = self.trainer.strategy.root_device.type == "cuda"
        wanted = self._config.data.workers
        workers = wanted if wanted >= 0 else _GPU_WORKERS if gpu else 0
        return loader(dataset, sampler, self._config.training.batch_size, workers, pinned=gpu)


class Progress(Checkpoint):
    """Writes ``best.ckpt``, ``last.ckpt`` and the history where an epoch ends, and stops when patience does.

    Lightning's own callbacks forget the best score when the folder is moved, lose the CSV on resume and
    train one epoch more after an early stop; here all three follow from the rows, which the checkpoint holds.
    """

    def __init__(self, run: Run, settings: TrainingConfig) -> None:
        self._run, self._settings = run, settings
        self._fold = "" if run.fold is None else f"fold {run.fold}, "
        self._rows: list[dict[str, float]] = []
        self._started = 0.0
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    @property
    def state_key(self) -> str:
        """A name that does not change with the code around it."""
        return PROGRESS

    @property
    def epochs(self) -> int:
        """Epochs that have ended, over all attempts."""
        return len(self._rows)

    @property
    def ended(self) -> bool:
        """Whether nothing is left to train."""
        return self.epochs >= self._settings.max_epochs or patience_ended(self._scores, self._settings.patience)

    @property
    def _scores(self) -> list[float]:
        return [row["map50"] for row in self._rows]

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, as plain numbers."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of a checkpoint."""
        self._rows = list(state_dict["rows"])

    def write_history(self) -> None:
        """Bring ``history.csv`` up to the rows: a kill may have come between it and the checkpoint."""
        write_text(self._run.history, pd.DataFrame(self._rows).to_csv(index=False, lineterminator="\n"))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take SIGTERM back: Lightning's handler waits for the other processes, which wait for this one."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row; save the best first, then the last, so that the last never points to neither."""
        seen = trainer.callback_metrics
        better = not self._rows or float(seen["map50"]) >= max(self._scores)  # of equals, the longer trained
        measured = {name: float(seen[name]) for name in ("train_loss", "map50", "map50_95", "boxes_lost")}
        row = {
            "epoch": self.epochs + 1,
            "step": trainer.global_step,
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            **measured,
            "seconds": round(monotonic() - self._started, 2),
        }
        self._rows = [*self._rows, {name: row[name] for name in HISTORY_COLUMNS}]
        if better:
            trainer.save_checkpoint(self._run.best)
        trainer.save_checkpoint(self._run.last)
        if trainer.is_global_zero:
            self.write_history()
            lost = f", {row['boxes_lost']:.0f} boxes lost at the border" if row["boxes_lost"] else ""
            log.info(
                "%sepoch %d/%d: loss %.3f, mAP@0.5 %.3f%s, %.0f s%s", self._fold, row["epoch"],
                self._settings.max_epochs, row["train_loss"], row["map50"], " (best)" if better else "",
                row["seconds"], lost,
            )  # fmt: skip
        trainer.should_stop = trainer.should_stop or self.ended


class _Ema(WeightAveraging):
    """A running mean of weights and buffers whose decay grows with the steps, up to the configured one."""

    def __init__(self, decay: float) -> None:
        def average(mean: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
            ramped = min(decay, (1 + float(updates)) / (_EMA_RAMP + float(updates)))
            return mean + (current - mean) * (1 - ramped)

        super().__init__(avg_fn=average)


class _AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints under a temporary name beside their goal, then renamed; read back as plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write and rename. A refusal of the system stays one: torch makes a RuntimeError of it."""
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read without running code from the file."""
        return load_checkpoint(Path(path), "restore it from a copy")


def _targets(batch: Batch) -> list[dict[str, Tensor]]:
    return [{"boxes": boxes, "labels": labels} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)]


# Lightning's advice that does not hold here, each with the reason.
_EXPECTED_WARNINGS = (
    r".*does not have many workers.*",  # on the CPU the workers would take the cores from the training
    r".*GPU available but not used.*",  # trainer.accelerator=cpu was asked for
    r".*Checkpoint directory .* exists and is not empty.*",  # a run's folder is resumed on purpose
    r".*number of training batches .* is smaller than the logging interval.*",  # values are logged per epoch
    r".*isinstance\(treespec, LeafSpec\).*",  # torch's own deprecation inside Lightning's batch transfer
)
