"""The optimiser of a detector: which of its weights decay, and which learn at the rate of the backbone."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from kit.config import TrainingConfig
from kit.detectors.networks import backbone_of

_LAYER = re.compile(r"\.layer\.(\d+)\.")  # of a transformer, in the names of transformers' backbones
_EMBEDDINGS = "embeddings."  # of its patches, positions and class token
RATE_FACTOR = "rate_factor"  # the key of a group under which its factor on the learning rate is kept


def make_optimizer(detector: nn.Module, settings: TrainingConfig) -> torch.optim.Optimizer:
    """The configured optimiser of a detector's trainable weights, in the groups of ``weight_groups``."""
    groups, rate = weight_groups(detector, settings), settings.learning_rate
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)


def weight_groups(detector: nn.Module, settings: TrainingConfig) -> list[dict[str, Any]]:
    """The trainable weights by rate and decay: those outside the backbone first, without empty groups.

    A weight of one dimension is a norm's or a bias. With the defaults of ``backbone_rate``, ``layer_decay``,
    ``decay_norms`` and ``decay_embeddings`` there is one group, in the order of the weights. A checkpoint's
    optimiser knows its weights by their number in the groups.
    """
    names = {id(weight): name for name, weight in backbone_of(detector).named_parameters()}
    layers = 1 + max((int(found[1]) for name in names.values() if (found := _LAYER.search(name))), default=-1)
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for weight in detector.parameters():
        if weight.requires_grad:
            name = names.get(id(weight), "")
            spared = not settings.decay_norms and weight.ndim <= 1
            spared |= not settings.decay_embeddings and name.startswith(_EMBEDDINGS)
            below = layers_below(name, layers) if settings.layer_decay != 1 else 0
            slowed = bool(name) and (settings.backbone_rate != 1 or below > 0)
            groups.setdefault((slowed, below, spared), []).append(weight)
    return [
        {
            "params": weights,
            "weight_decay": 0.0 if spared else settings.weight_decay,
            RATE_FACTOR: settings.backbone_rate * settings.layer_decay**below if slowed else 1.0,
        }
        for (slowed, below, spared), weights in sorted(groups.items(), key=lambda item: item[0])
    ]


def layers_below(name: str, layers: int) -> int:
    """How many times ``layer_decay`` slows a weight of the backbone: 2 for its last layer, as RF-DETR counts.

    https://github.com/roboflow/rf-detr: rfdetr/models/backbone/backbone.py, get_dinov2_lr_decay_rate. 0 for a
    weight in no layer, ``layers`` + 2 for the embeddings.
    """
    if name.startswith(_EMBEDDINGS):
        return layers + 2
    found = _LAYER.search(name)
    return layers + 1 - int(found[1]) if found else 0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: ``rate`` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RATE_FACTOR, 1.0)  # checkpoints of earlier versions have no factor
