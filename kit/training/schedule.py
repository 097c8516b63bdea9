"""The arithmetic of the recipe: batches per step, the weight of each loss, the rate, when to stop.

Pure functions of the step and the epoch, so that a resumed run goes on exactly where it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kit.config import TrainingConfig
from kit.core.errors import KitError


def accumulation(settings: TrainingConfig, processes: int) -> int:
    """Batches per optimiser step, so that a step sees ``effective_batch`` images whatever the devices."""
    images = settings.batch_size * processes
    if settings.effective_batch % images:
        per_process, rest = divmod(settings.effective_batch, processes)
        smaller = max(size for size in range(1, settings.batch_size + 1) if per_process % size == 0)
        fewer = [
            count for count in range(1, processes) if not settings.effective_batch % (settings.batch_size * count)
        ]
        nearest = max(1, round(settings.effective_batch / images)) * images
        raise KitError(
            "training.effective_batch to be a multiple of training.batch_size x processes",
            f"{settings.effective_batch} against {settings.batch_size} x {processes}",
            f"--set training.effective_batch={nearest}"
            + ("" if rest or not per_process else f", or --set training.batch_size={smaller}")
            + (f"; a run that has begun goes on with --set trainer.devices={fewer[-1]}" if fewer else ""),
        )
    return settings.effective_batch // images


def smallest_batch(images: int, batch_size: int) -> int:
    """The images in the smallest batch of an epoch of ``images`` images."""
    return images % batch_size or batch_size


def fitting_batch_size(images: Sequence[int], settings: TrainingConfig, processes: int) -> int | None:
    """The batch size next below the configured one, or else next above, that leaves no batch of one image.

    It divides ``effective_batch`` too. ``images`` has those of one process, by fold. None if there is none.
    """
    own = settings.batch_size
    for size in (*range(own, 1, -1), *range(own + 1, settings.effective_batch + 1)):
        if settings.effective_batch % (size * processes) == 0 and all(
            smallest_batch(count, size) > 1 for count in images
        ):
            return size
    return None


def loss_factor(batch: int, images: int, batch_size: int, window: int) -> float:
    """What a batch's mean loss is multiplied by before Lightning divides it by ``window``.

    Makes the gradient of each step the mean over the step's images, in the short last window and for the
    short last batch too: factor = window x (images of the batch) / (images of its window).
    """
    first = batch // window * window
    in_window = min(images, (first + window) * batch_size) - first * batch_size
    in_batch = min(images, (batch + 1) * batch_size) - batch * batch_size
    return window * in_batch / in_window


def learning_rate(step: int, steps_per_epoch: int, settings: TrainingConfig) -> float:
    """The rate of optimiser step ``step`` (from 0): linear warm-up, then a cosine from where that ends."""
    warmup = settings.warmup_epochs * steps_per_epoch
    peak = settings.learning_rate
    if step < warmup:
        return settings.warmup_start_rate + (peak - settings.warmup_start_rate) * step / warmup
    last = settings.max_epochs * steps_per_epoch - 1
    done = min(1.0, (step - warmup) / max(1.0, last - warmup))
    return settings.final_rate + (peak - settings.final_rate) * (1 + math.cos(math.pi * done)) / 2


def patience_ended(scores: Sequence[float], patience: int) -> bool:
    """Whether the last ``patience`` epochs brought nothing better; 0 never ends."""
    return bool(patience) and len(scores) - 1 - int(np.argmax([*scores, -1])) >= patience
