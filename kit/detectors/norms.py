"""Whether a detector's norm layers can be trained with one image: they need more than one value per channel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from kit.detectors.set_detectors import SetDetector

_STRIDE = 32  # images are padded to multiples of it
_TOO_FEW = "more than 1 value per channel"


def takes_one_image(detector: nn.Module, image_size_px: int) -> bool:
    """Whether the backbone takes a batch of one image, whose longer side is ``image_size_px``, in training.

    Nothing is computed and nothing of the detector changes: tensors without content go through its layers.
    """
    if isinstance(detector, SetDetector):  # its least square leaves more than one cell on every level
        return True
    backbone: Any = detector.backbone
    empty = {
        name: tensor.detach().to("meta")
        for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())
    }
    was_training = backbone.training
    backbone.train()
    try:
        side = math.ceil(image_size_px / _STRIDE) * _STRIDE
        with torch.no_grad():
            functional_call(backbone, empty, (torch.zeros(1, 3, side, _STRIDE, device="meta"),))
    except ValueError as error:
        if _TOO_FEW not in str(error):
            raise
        return False
    finally:
        backbone.train(was_training)
    return True
