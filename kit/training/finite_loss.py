"""Finds a non-finite loss without making the processor wait for a GPU.

On the CPU a loss is known at once. A GPU's verdict is copied while it goes on computing and read one optimiser
step later, when it has long arrived: the weights are then spoilt, but no checkpoint is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class BadLoss:
    """The first batch whose loss was not finite: its optimiser step and its images' indices."""

    step: int
    indices: tuple[int, ...]


class LossCheck:
    """The losses since the last optimiser step, and the pending (asynchronous) check of the step before."""

    def __init__(self) -> None:
        self._losses: list[tuple[Tensor, tuple[int, ...]]] = []
        self._under_way: Callable[[], BadLoss | None] = _nothing

    def add(self, loss: Float[Tensor, ""], indices: Sequence[int]) -> None:
        """Take the loss of a batch of these images."""
        self._losses.append((loss.detach(), tuple(indices)))

    def verdict(self, step: int) -> BadLoss | None:
        """What is known at optimiser step ``step``: on the CPU all, on a GPU what came before the last call."""
        finite = torch.isfinite(torch.stack([loss for loss, _ in self._losses]))
        images = [indices for _, indices in self._losses]
        self._losses.clear()
        if not finite.is_cuda:
            return _first_bad(finite, images, step)
        known, self._under_way = self._under_way, _later(finite, images, step)
        return known()

    def last_verdict(self) -> BadLoss | None:
        """Wait for the pending verdict, if any: before validation and before a checkpoint."""
        known, self._under_way = self._under_way, _nothing
        return known()


def _nothing() -> BadLoss | None:
    return None


def _later(finite: Tensor, images: list[tuple[int, ...]], step: int) -> Callable[[], BadLoss | None]:
    """Start the copy; the function returned waits for that copy alone, not for later work of the GPU."""
    arrived = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True)
    arrived.copy_(finite, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def read() -> BadLoss | None:
        event.synchronize()
        return _first_bad(arrived, images, step)

    return read


def _first_bad(finite: Tensor, images: list[tuple[int, ...]], step: int) -> BadLoss | None:
    bad = [indices for indices, fine in zip(images, finite.tolist(), strict=True) if not fine]
    return BadLoss(step, bad[0]) if bad else None
