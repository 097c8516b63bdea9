"""The preset's network with random weights: what it costs does not depend on what it has learned."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from kit.config import Config, preset
from kit.detectors import networks, weights
from kit.detectors.memory import channels_last

from .sizes import Sizes


def config_of(name: str, sizes: Sizes) -> Config:
    """The preset, its norms as they are with the weights that it downloads, without the download."""
    config = preset(name)
    named = dataclasses.replace(weights.resolve_norms(config.model), weights="none")
    if name == "laptop":
        named = dataclasses.replace(named, image_size_px=sizes.laptop_px)
    return dataclasses.replace(config, model=named)


def detector_of(config: Config, classes: int) -> nn.Module:
    """A new network of the preset for so many classes, the same each time, its weights as the kit lays them."""
    torch.manual_seed(config.training.seed)
    return channels_last(networks.build(config.model, classes))
