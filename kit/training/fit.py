"""The loop that turns images into weights; the only module that imports Lightning.

Whatever is random (order, augmentation, the detector's own sampling) is a function of (seed, epoch, step,
image), and checkpoints are written when an epoch ends: a kill costs at most one epoch and changes nothing.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import ClusterEnvironment, TorchCheckpointIO
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.callbacks.weight_averaging import WeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from kit.config import Config
from kit.core.files import remove_partials, replacing
from kit.data.competition import TrainingData
from kit.detectors.checkpoints import load_checkpoint
from kit.detectors.hardware import (
    deterministic_algorithms,
    explain_failures,
    lightning_precision,
    process_count,
    uses_gpu,
)
from kit.detectors.memory import keeping_freed_memory
from kit.runs.folder import Run, Split, read_stages
from kit.runs.locks import rank
from kit.training.epochs import Progress
from kit.training.module import DetectionModule
from kit.training.resume import resume_state
from kit.training.schedule import accumulation
from kit.training.seen import seen_sha256

_EMA_RAMP = 10
log = logging.getLogger("kit")


def fit(run: Run, config: Config, split: Split, data: TrainingData, detector: nn.Module) -> None:
    """Train until the last epoch or until patience ends; continue from ``last.ckpt`` if it exists.

    Leaves ``best.ckpt``, ``last.ckpt``, ``history.csv`` and TensorBoard logs in ``run.home``.

    Args:
        run: The run; names its fold if there are several.
        config: Every knob of the run.
        split: The images that each fold holds out.
        data: The training data.
        detector: The network with its starting weights, which ``last.ckpt`` replaces.

    Raises:
        KitError: A batch that does not divide or does not fit in memory, or a non-finite loss.
    """
    settings = config.training
    processes = process_count(config) * config.trainer.nodes
    window = accumulation(settings, processes)
    state = resume_state(run, detector)
    # The first process alone writes, and deletes: another one may begin a fold while the first still writes.
    is_first = rank() == 0
    seen = seen_sha256(run, state) if is_first else ""
    progress = Progress(run, settings)
    if state:
        progress.load_state_dict(state["callbacks"][progress.state_key])
        if is_first:
            progress.write_history()
        if progress.ended:
            return
        log.info("run %s: going on from epoch %d of %d", run.title, progress.epochs + 1, settings.max_epochs)
    if is_first:
        remove_partials(run.home)
    module = DetectionModule(
        detector, config, split, run.fold or 0, data, window, progress.epochs, read_stages(run), seen
    )
    ema = [_Ema(settings.ema_decay)] if settings.ema_decay else []
    bar = [TQDMProgressBar(leave=False)] if sys.stderr.isatty() else []
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        trainer = pl.Trainer(
            accelerator=config.trainer.accelerator,
            devices=process_count(config),
            num_nodes=config.trainer.nodes,
            strategy="ddp" if processes > 1 else "auto",
            precision=lightning_precision(config),
            max_epochs=settings.max_epochs,
            accumulate_grad_batches=window,
            gradient_clip_val=settings.clip_norm or None,
            logger=TensorBoardLogger(run.home, name="tensorboard", version="", purge_step=module.first_step),
            callbacks=[*ema, *bar, progress],
            plugins=[_AtomicCheckpoints(), _launcher()],
            enable_checkpointing=True,
            enable_progress_bar=bool(bar),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=run.home,
        )
        device = "cuda" if uses_gpu(config) else "cpu"
        knob = "training.batch_size under another --run NAME (training.effective_batch keeps the recipe)"
        try:
            with (
                keeping_freed_memory(device),
                deterministic_algorithms(settings.deterministic),
                explain_failures(settings.batch_size, config.model.image_size_px, knob),
            ):
                trainer.fit(module, ckpt_path=run.last if state else None)
        except SystemExit as error:  # Lightning turns Ctrl-C into an exit; the task says how to go on
            raise KeyboardInterrupt from error


def _launcher() -> ClusterEnvironment:
    """Who starts the processes: torchrun, or Lightning itself.

    Lightning alone would take any process in which a scheduler's variables are set for one of its tasks: SLURM sets
    them in batch scripts and in shells on its nodes too, where nobody starts the others.
    """
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


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


# Lightning's advice that does not hold here, each with the reason.
_EXPECTED_WARNINGS = (
    r".*does not have many workers.*",  # on the CPU the workers would take the cores from the training
    r".*`srun` command is available.*",  # torchrun starts further processes, or Lightning does
    r".*GPU available but not used.*",  # trainer.accelerator=cpu was asked for
    r".*Checkpoint directory .* exists and is not empty.*",  # a run's folder is resumed on purpose
    r".*number of training batches .* is smaller than the logging interval.*",  # values are logged per epoch
    r".*Grad strides do not match bucket view strides.*",  # RF-DETR's first token: nothing to gain there
    r".*isinstance\(treespec, LeafSpec\).*",  # torch's own deprecation inside Lightning's batch transfer
)
