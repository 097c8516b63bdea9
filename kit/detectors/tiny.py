"""An FCOS of about a million parameters for small images and training from random weights."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.resnet import BasicBlock

from kit.config import ModelConfig

_TINY_CHANNELS = (32, 64, 96, 128)
_TINY_BLOCKS = (1, 2, 2, 1)
_TINY_STRIDES = (4, 8, 16, 32)
_TINY_HEAD_CHANNELS, _TINY_HEAD_CONVS = (
    64,
    2,
)  # torchvision's four convolutions take twice the time and learn slower


def tiny_fcos(_: ModelConfig, classes: int) -> nn.Module:
    """FCOS of about a million parameters with strides 4, 8, 16 and 32; ``classes`` includes the background."""
    backbone = BackboneWithFPN(
        _TinyBody(),
        {name: name for name in _TinyBody.stages},
        list(_TINY_CHANNELS),
        _TINY_HEAD_CHANNELS,
        extra_blocks=_NoExtraLevel(),
    )
    anchors = AnchorGenerator(tuple((stride,) for stride in _TINY_STRIDES), ((1.0,),) * len(_TINY_STRIDES))
    head = FCOSHead(_TINY_HEAD_CHANNELS, 1, classes, num_convs=_TINY_HEAD_CONVS)
    return FCOS(backbone, classes, anchor_generator=anchors, head=head)


class _TinyBody(nn.Sequential):
    """A stem of stride 4 and residual stages; each stage after the first halves the size."""

    stages = ("stage1", "stage2", "stage3", "stage4")

    def __init__(self) -> None:
        super().__init__()
        channels = _TINY_CHANNELS[0]
        stem = nn.Sequential(
            nn.Conv2d(3, channels, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.add_module("stem", stem)
        for name, width, blocks in zip(self.stages, _TINY_CHANNELS, _TINY_BLOCKS, strict=True):
            stride = 1 if name == self.stages[0] else 2
            shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
            first = BasicBlock(channels, width, stride, shortcut)
            self.add_module(name, nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1))))
            channels = width


class _NoExtraLevel(detection.backbone_utils.ExtraFPNBlock):
    """No level after the pyramid: torchvision would otherwise append a pooled one."""

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        return results, names
