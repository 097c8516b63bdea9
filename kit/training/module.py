"""A detector with its data, schedule and in-loop score, as Lightning wants them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision

from kit.config import Config
from kit.core.errors import KitError
from kit.data.competition import TrainingData
from kit.data.dataset import Batch, DetectionDataset, EpochSampler, loader
from kit.detectors.hardware import process_count
from kit.detectors.memory import channels_last
from kit.detectors.networks import network_input
from kit.detectors.set_detectors import SetDetector
from kit.runs.folder import Split
from kit.runs.seen import CHECKPOINT_KEY
from kit.runs.stages import Stages
from kit.training.box_losses import BoxLosses
from kit.training.finite_loss import BadLoss, LossCheck
from kit.training.optimizer import make_optimizer, set_rate
from kit.training.schedule import learning_rate, loss_factor

_GPU_WORKERS = 4
_PREFIX = "detector."


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
        stages: Stages | None = None,
        seen_sha256: str = "",
    ) -> None:
        super().__init__()
        self.detector = channels_last(detector)
        self._config, self._labels, self._window, self._first_epoch = config, split.labels, window, first_epoch
        self._stages, self._seen_sha256 = stages, seen_sha256
        size_px, seed = config.model.image_size_px, config.training.seed
        self._train = DetectionDataset(data, split.training(fold), size_px, seed, config.augmentation)
        self._validation = DetectionDataset(data, split.folds[fold], size_px, seed)
        self._score = MeanAveragePrecision(backend="faster_coco_eval")
        self._loss_check = LossCheck()
        self._lost_here = np.zeros((2, len(split.labels)), dtype=np.int64)
        self.box_losses: BoxLosses | None = None  # of the last epoch, in all processes

    @property
    def first_step(self) -> int:
        """The optimiser step with which this attempt begins."""
        return self._first_epoch * self._steps_per_epoch(process_count(self._config) * self._config.trainer.nodes)

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
        return make_optimizer(self.detector, self._config.training)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the detector's own sampling by (seed, epoch, batch, rank)."""
        key = [self._config.training.seed, self.current_epoch, batch_idx, self.global_rank]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        if self.device.type == "cpu":  # torch.manual_seed notes a call stack for every kind of device
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the device; on the CPU it is there, and Lightning would rebuild its lists to see that."""
        if device.type == "cpu":
            return batch
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""]:
        """The loss of one batch, scaled for its place in the accumulation window."""
        losses = self.detector(network_input(batch.images), _targets(batch))
        loss = torch.stack(list(losses.values())).sum()
        self._loss_check.add(loss, batch.indices)
        self._lost_here += batch.boxes_lost  # logged after the epoch: logging here would wait for the GPU
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True,
                 batch_size=len(batch.images), sync_dist=True)  # fmt: skip
        if isinstance(self.detector, SetDetector):
            self.log_dict({f"loss_{kind}": part.detach() for kind, part in losses.items()}, on_step=False,
                          on_epoch=True, batch_size=len(batch.images), sync_dist=True)  # fmt: skip
        share = math.ceil(len(self._train) / self.trainer.world_size)
        return loss * loss_factor(batch_idx, share, self._config.training.batch_size, self._window)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop at a non-finite loss (on the CPU before it reaches the weights); set the step's rate."""
        self._refuse(self._loss_check.verdict(self.global_step))
        set_rate(optimizer, self.rate)

    def on_validation_start(self) -> None:
        """Stop at a non-finite loss of the epoch's last step before anything is made of the weights."""
        self._refuse(self._loss_check.last_verdict())

    def on_train_epoch_end(self) -> None:
        """Count the boxes that the augmentation lost in this epoch; in the first one no class may lose all."""
        here = torch.from_numpy(self._lost_here).to(self.device)
        lost = self.trainer.strategy.reduce(here, reduce_op="sum").cpu().numpy()
        self.log("boxes_lost", float(lost.sum()), reduce_fx="max", sync_dist=True)
        self.box_losses = BoxLosses(self._labels, self._train.box_counts, *lost)
        self._lost_here = np.zeros_like(self._lost_here)
        if self.current_epoch == 0:
            self.box_losses.refuse(self._config)
        if self.current_epoch == self._first_epoch and self.global_rank == 0:
            self.box_losses.warn(self._config)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect detections and truth of the plain view."""
        detections = self.detector(network_input(batch.images))
        # An image that wrapped round is handed in empty: the metric gathers the processes' images pair by pair.
        handed = [
            [
                boxes if counted else {name: rows[:0] for name, rows in boxes.items()}
                for boxes, counted in zip(boxes_by_image, batch.counted, strict=True)
            ]
            for boxes_by_image in (detections, _targets(batch))
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
                "look at these images and their boxes, or lower training.learning_rate; train with either change "
                "under another --run NAME (this run keeps its last whole epoch)",
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
            "stages": self._stages.content() if self._stages else None,
            CHECKPOINT_KEY: self._seen_sha256,
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


def _targets(batch: Batch) -> list[dict[str, Tensor]]:
    return [{"boxes": boxes, "labels": labels} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)]
