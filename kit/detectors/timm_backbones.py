"""timm's feature extractors as backbones of Faster R-CNN, RetinaNet and FCOS. timm is an optional extra.

A second family of backbones makes the members of an ensemble differ. Networks for one image size only (most
transformers) are refused, because images have many sizes.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from kit.core.errors import KitError, closest_names, reason
from kit.detectors.hub_weights import HUB

KINDS = ("fasterrcnn", "retinanet", "fcos")
GROUPS = 32  # groups of the heads' group norms: the pyramid's channels are a multiple of them
_STRIDES = (4, 8, 16, 32)
_FIRST_STRIDE = {"fasterrcnn": 4, "retinanet": 8, "fcos": 8}  # as in torchvision's own detectors
_EXTRA_LEVELS = {"fasterrcnn": 1, "retinanet": 2, "fcos": 2}  # each doubles the stride
_ANCHOR_STRIDES = {"fasterrcnn": 8, "retinanet": 4}  # side of a level's smallest anchor, in units of its stride
_RATIOS = (0.5, 1.0, 2.0)
_OCTAVES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
_PROBE = (1, 3, 128, 192)


class Pyramid(nn.Module):
    """A feature pyramid on some of the feature maps of a timm network; every level has ``channels`` channels."""

    def __init__(self, body: nn.Module, kind: str, channels: int) -> None:
        super().__init__()
        self.body = body
        info: Any = body.feature_info
        strides, widths = info.reduction(), info.channels()
        deepest = {stride: index for index, stride in enumerate(strides)}  # the last feature map of each stride
        used = [stride for stride in _STRIDES if stride in deepest and stride >= _FIRST_STRIDE[kind]]
        self.indices = [deepest[stride] for stride in used]
        self.strides = [*used, *(used[-1] * 2 ** (step + 1) for step in range(_EXTRA_LEVELS[kind]))]
        extra: ExtraFPNBlock = LastLevelMaxPool() if kind == "fasterrcnn" else LastLevelP6P7(channels, channels)
        self.fpn = FeaturePyramidNetwork([widths[index] for index in self.indices], channels, extra)
        self.out_channels = channels

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """The maps by level, the finest first."""
        features = self.body(images)
        return self.fpn(OrderedDict((str(level), features[index]) for level, index in enumerate(self.indices)))


def build_timm(kind: str, name: str, channels: int, classes: int) -> nn.Module:
    """A detector of ``KINDS`` on the timm network ``name``, with random weights; background is a class.

    The anchors are 8 strides wide for Faster R-CNN, 4 to 6.3 for RetinaNet, 1 for FCOS. Raises KitError if timm is
    not installed or has no such network, or if the network does not take images of any size.
    """
    body = _body(name)
    backbone = Pyramid(body, kind, channels)
    means = {"image_mean": list(_weights_of(body)["mean"]), "image_std": list(_weights_of(body)["std"])}
    if kind == "fcos":
        anchors = AnchorGenerator(
            tuple((stride,) for stride in backbone.strides), ((1.0,),) * len(backbone.strides)
        )
        return FCOS(backbone, classes, anchor_generator=anchors, **means)
    octaves = _OCTAVES if kind == "retinanet" else (1.0,)
    sides = [_ANCHOR_STRIDES[kind] * stride for stride in backbone.strides]
    anchors = AnchorGenerator(
        tuple(tuple(int(side * octave) for octave in octaves) for side in sides), (_RATIOS,) * len(sides)
    )
    if kind == "retinanet":
        norm = functools.partial(nn.GroupNorm, GROUPS)
        head = RetinaNetHead(channels, len(octaves) * len(_RATIOS), classes, norm_layer=norm)
        return RetinaNet(backbone, classes, anchor_generator=anchors, head=head, **means)
    levels = [str(level) for level in range(len(backbone.indices))]
    pool = MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2)
    return FasterRCNN(backbone, classes, rpn_anchor_generator=anchors, box_roi_pool=pool, **means)


def norm_eps(name: str) -> float | None:
    """The epsilon of the network's batch norms in timm; None if it has no batch norm."""
    norms = [module for module in _body(name).modules() if isinstance(module, nn.BatchNorm2d)]
    return norms[0].eps if norms else None


def freeze_norms(body: nn.Module) -> None:
    """Replace the network's batch norms by frozen ones; the activation inside timm's norms is kept."""
    _timm().layers.freeze_batch_norm_2d(body)


def pretrained_weights(name: str) -> Mapping[str, Tensor]:
    """timm's weights of the network, for its feature extractor. Raises KitError if they cannot be downloaded."""
    page = published_at(name)
    if not page:
        raise KitError(f"pretrained weights of {name}", "timm has none", "--set model.weights=none goes without")
    try:
        return _timm().create_model(name, features_only=True, pretrained=True).state_dict()
    except Exception as error:  # the hub's client raises errors of several libraries, depending on its version
        raise KitError(
            f"to download the imagenet weights of {name}", reason(error),
            f"fetch model.safetensors from {page} elsewhere and --set model.weights=PATH to it; "
            "--set model.weights=none goes without",
        ) from error  # fmt: skip


def published_at(name: str) -> str:
    """The address of the repository, or of the file, of timm's weights of a network; "" if there are none."""
    source = _weights_of(_body(name))
    return f"{HUB}/{source['hf_hub_id']}" if source.get("hf_hub_id") else source.get("url") or ""


def convert_classifier_weights(name: str, weights: Mapping[str, Tensor], source: str) -> Mapping[str, Tensor]:
    """A classifier's weights, as timm publishes them, converted for the feature extractor.

    Raises KitError if they hold fewer than half of the feature extractor's tensors.
    """
    try:
        converted = _timm().create_model(
            name, features_only=True, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(weights)}
        ).state_dict()  # fmt: skip
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise _unfit(name, source, reason(error)) from error
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for tensor in weights.values():
        by_shape.setdefault(tensor.shape, []).append(tensor)
    # timm does not report missing tensors, and may rename the others: compare the values.
    taken = sum(
        any(torch.equal(tensor, original) for original in by_shape.get(tensor.shape, ()))
        for tensor in converted.values()
    )
    if taken < len(converted) / 2:
        raise _unfit(name, source, f"{taken} of its {len(converted)} tensors are there")
    return converted


def _body(name: str) -> nn.Module:
    timm = _timm()
    if not timm.is_model(name):
        raise KitError("model.backbone to be the name of a timm model", repr(name),
                       f"nearest: {closest_names(name, timm.list_models())}")  # fmt: skip
    try:
        body: nn.Module = timm.create_model(name, features_only=True, pretrained=False)
        body.eval()
        with torch.no_grad():
            features = body(torch.zeros(_PROBE))
    # A model without feature maps, or for another image size, can fail with any exception.
    except Exception as error:
        raise _unsuited(name, reason(error)) from error
    body.train()
    info: Any = body.feature_info
    shapes = [(1, width, -(-_PROBE[2] // stride), -(-_PROBE[3] // stride))
              for width, stride in zip(info.channels(), info.reduction(), strict=True)]  # fmt: skip
    if [tuple(feature.shape) for feature in features] != shapes or not set(info.reduction()) & set(_STRIDES[1:]):
        raise _unsuited(
            name, f"features of strides {info.reduction()}, shapes {[tuple(f.shape) for f in features]}"
        )
    return body


def _weights_of(body: nn.Module) -> Mapping[str, Any]:
    """timm's description of the pretrained weights: their address, the mean and deviation of pixels."""
    description: Any = body.pretrained_cfg
    return dict(description)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise KitError("timm, which model.backbone needs", "it is not installed", "pip install timm") from error
    # It warns of the classifier's tensors, which a detector has no use for; what matters is refused above in words.
    logging.getLogger("timm").setLevel(logging.ERROR)
    return timm


def _unsuited(name: str, reason: str) -> KitError:
    return KitError(
        "model.backbone to be a timm model with feature maps for images of any size", f"{name}: {reason}",
        "choose a convolutional network, such as efficientnet_lite0, resnet18 or convnext_atto",
    )  # fmt: skip


def _unfit(name: str, source: str, reason: str) -> KitError:
    return KitError(
        f"{source} to hold weights of {name}", reason,
        "choose the model.backbone of the file's weights",
    )  # fmt: skip
