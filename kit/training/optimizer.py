"""The optimiser of a detector: which of its weights decay, and which learn at the rate of the backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kit.config import TrainingConfig
from kit.detectors.networks import backbone_of

RATE_FACTOR = "rate_factor"  # the key of a group under which its factor on the learning rate is kept


def make_optimizer(detector: nn.Module, settings: TrainingConfig) -> torch.optim.Optimizer:
    """The configured optimiser of a detector's trainable weights, in the groups of ``weight_groups``."""
    groups, rate = weight_groups(detector, settings), settings.learning_rate
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)


def weight_groups(detector: nn.Module, settings: TrainingConfig) -> list[dict[str, Any]]:
    """The trainable weights by rate and decay: those outside the backbone first, without empty groups.

    A weight of one dimension is a norm's or a bias. With the defaults of ``backbone_rate`` and ``decay_norms``
    there is one group, in the order of the weights.
    """
    body = {id(weight) for weight in backbone_of(detector).parameters()} if settings.backbone_rate != 1 else set()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for weight in detector.parameters():
        if weight.requires_grad:
            spared = not settings.decay_norms and weight.ndim <= 1
            groups.setdefault((id(weight) in body, spared), []).append(weight)
    return [
        {
            "params": weights,
            "weight_decay": 0.0 if spared else settings.weight_decay,
            RATE_FACTOR: settings.backbone_rate if in_body else 1.0,
        }
        for (in_body, spared), weights in sorted(groups.items(), key=lambda item: item[0])
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: ``rate`` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RATE_FACTOR, 1.0)  # checkpoints of earlier versions have no factor
