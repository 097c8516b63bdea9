"""The detectors by name, built with random weights.

In torchvision the requested weights decide whether BatchNorm is frozen, and COCO weights set its epsilon to 0.
Here the run's config holds both, so that a rebuilt network is the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models import MobileNet_V3_Large_Weights, ResNet50_Weights, detection
from torchvision.models._api import WeightsEnum
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from kit.config import ModelConfig
from kit.detectors import timm_backbones
from kit.detectors.set_detectors import SetDetector, build_set_detector
from kit.detectors.tiny import tiny_fcos

TORCH_EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class Family:
    """A detector: its constructor, its pretrained weights, and the norm layers these were trained with."""

    build: Callable[[ModelConfig, int], nn.Module]
    coco: WeightsEnum | None
    imagenet: WeightsEnum | None
    pretrained_norm: str
    coco_eps: float = TORCH_EPS


class NoResize(GeneralizedRCNNTransform):
    """torchvision's normalising and batching, without its resizing.

    The strides need sides that are multiples of 32. The padding repeats the image's border, because the network
    took torchvision's grey bars for findings (demo: view ``zoom_out`` .57 with bars, .69 without).
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return both unchanged: the view determines the size."""
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Stack images (3, h, w) of any sizes; the last column and row are repeated to the right and below."""
        height, width = (
            math.ceil(max(image.shape[side] for image in images) / size_divisible) * size_divisible
            for side in (1, 2)
        )
        margins = [(0, width - image.shape[2], 0, height - image.shape[1]) for image in images]
        return torch.cat(
            [pad(image[None], margin, mode="replicate") for image, margin in zip(images, margins, strict=True)]
        )


def build(config: ModelConfig, classes: int) -> nn.Module:
    """The detector for ``classes`` findings with random weights, its score floor and norm layers as configured.

    Labels are 1..classes; 0 is background. ``config`` has explicit norms, see ``weights.resolve_norms``.
    """
    model: Any = DETECTORS[config.detector].build(config, classes + 1)
    if not isinstance(model, SetDetector):
        old = model.transform
        model.transform = NoResize(1, 1, old.image_mean, old.image_std, size_divisible=old.size_divisible)
    body = backbone_of(model)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = config.norm_eps
    if config.norm == "frozen":
        timm_backbones.freeze_norms(body) if config.backbone else _freeze_norms(body)
    _set_limits(model, config)
    return model


def backbone_of(detector: nn.Module) -> nn.Module:
    """The part of a detector whose weights are pretrained: all before the feature pyramid."""
    return detector.body if isinstance(detector, SetDetector) else detector.get_submodule("backbone.body")


def network_input(images: Sequence[UInt8[Tensor, "1 _h _w"]]) -> list[Float[Tensor, "3 _h2 _w2"]]:
    """Grey bytes as the detectors take them: three equal channels in 0..1, on the images' device."""
    return [(image.to(torch.float32) / 255).expand(3, -1, -1) for image in images]


def _torchvision(name: str) -> Callable[[ModelConfig, int], nn.Module]:
    def build_one(_: ModelConfig, classes: int) -> nn.Module:
        return getattr(detection, name)(weights=None, weights_backbone=None, num_classes=classes)

    return build_one


def _timm(kind: str) -> Family:
    def build_one(config: ModelConfig, classes: int) -> nn.Module:
        return timm_backbones.build_timm(kind, config.backbone, config.fpn_channels, classes)

    return Family(build_one, coco=None, imagenet=None, pretrained_norm="frozen")


DETECTORS: dict[str, Family] = {
    "fasterrcnn_resnet50_fpn_v2": Family(
        _torchvision("fasterrcnn_resnet50_fpn_v2"),
        detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
        ResNet50_Weights.IMAGENET1K_V1,
        pretrained_norm="batch",
    ),
    "fasterrcnn_resnet50_fpn": Family(
        _torchvision("fasterrcnn_resnet50_fpn"),
        detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
        ResNet50_Weights.IMAGENET1K_V1,
        pretrained_norm="frozen",
        coco_eps=0.0,
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": Family(
        _torchvision("fasterrcnn_mobilenet_v3_large_fpn"),
        detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
        MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        pretrained_norm="frozen",
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Family(
        _torchvision("fasterrcnn_mobilenet_v3_large_320_fpn"),
        detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
        MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        pretrained_norm="frozen",
    ),
    "retinanet_resnet50_fpn_v2": Family(
        _torchvision("retinanet_resnet50_fpn_v2"),
        detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1,
        ResNet50_Weights.IMAGENET1K_V1,
        pretrained_norm="batch",
    ),
    "fcos_resnet50_fpn": Family(
        _torchvision("fcos_resnet50_fpn"),
        detection.FCOS_ResNet50_FPN_Weights.COCO_V1,
        ResNet50_Weights.IMAGENET1K_V1,
        pretrained_norm="frozen",
    ),
    "fcos_tiny": Family(tiny_fcos, coco=None, imagenet=None, pretrained_norm="batch"),
    **{f"{kind}_timm": _timm(kind) for kind in timm_backbones.KINDS},
    "dfine": Family(build_set_detector, coco=None, imagenet=None, pretrained_norm="frozen"),
    "rfdetr": Family(build_set_detector, coco=None, imagenet=None, pretrained_norm="batch"),
}


def _set_limits(model: nn.Module, config: ModelConfig) -> None:
    # The limits are attributes of Faster R-CNN's heads, but of a one-stage detector itself.
    heads: Any = getattr(model, "roi_heads", model)
    heads.score_thresh = config.score_floor
    heads.nms_thresh = config.nms_iou
    heads.detections_per_img = config.detections_per_image
    if isinstance(rpn := getattr(model, "rpn", None), RegionProposalNetwork):
        rpn.score_thresh = 0.0  # otherwise the 320 px variant drops proposals below .05


def _freeze_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _freeze_norms(child)
