"""The detectors by name, and the way of weights in and out.

torchvision decides by the weights that it is asked for whether BatchNorm is frozen, and with COCO weights
sets its epsilon to 0. Here both are named and kept in the run's config, so that a rebuilt network is the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.models import MobileNet_V3_Large_Weights, ResNet50_Weights, detection
from torchvision.models._api import WeightsEnum
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FrozenBatchNorm2d

from kit import timm_detectors
from kit.checkpoints import load_checkpoint
from kit.config import ModelConfig
from kit.core.errors import KitError
from kit.core.files import sha256

TORCH_EPS = 1e-5
_CHECK_WEIGHTS = "check model.weights: coco, imagenet, none or the path of a weights file"
_TINY_CHANNELS = (32, 64, 96, 128)
_TINY_BLOCKS = (1, 2, 2, 1)
_TINY_STRIDES = (4, 8, 16, 32)
_TINY_HEAD_CHANNELS, _TINY_HEAD_CONVS = 64, 2  # torchvision's four cost twice the time and learn slower


@dataclasses.dataclass(frozen=True)
class Family:
    """A detector: how it is built without weights, and what pretrained weights for it were made with."""

    build: Callable[[ModelConfig, int], nn.Module]
    coco: WeightsEnum | None
    imagenet: WeightsEnum | None
    pretrained_norm: str
    coco_eps: float = TORCH_EPS


class NoResize(GeneralizedRCNNTransform):
    """torchvision's normalising and batching, with images kept at the size in which they come.

    The strides want sides that are multiples of 32. What is missing repeats the image's border: torchvision's
    grey bars looked like findings to the network (demo: view ``zoom_out`` .57 with bars, .69 without).
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return both as they are: a view chose the size."""
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = 32) -> Tensor:
        """Stack images (3, h, w) of any sizes, each continued to the right and below by its border."""
        height, width = (
            math.ceil(max(image.shape[side] for image in images) / size_divisible) * size_divisible
            for side in (1, 2)
        )
        grown = [(0, width - image.shape[2], 0, height - image.shape[1]) for image in images]
        return torch.cat(
            [pad(image[None], margin, mode="replicate") for image, margin in zip(images, grown, strict=True)]
        )


def build(config: ModelConfig, classes: int) -> nn.Module:
    """The detector for ``classes`` findings with random weights, its floors and norm layers as configured.

    Labels are 1..classes; 0 is background. ``config`` is one that ``resolved`` has named the norms of.
    """
    model: Any = DETECTORS[config.detector].build(config, classes + 1)
    old = model.transform
    model.transform = NoResize(1, 1, old.image_mean, old.image_std, size_divisible=old.size_divisible)
    body = model.backbone.body
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = config.norm_eps
    if config.norm == "frozen":
        timm_detectors.freeze_norms(body) if config.backbone else _freeze_norms(body)
    _lower_floors(model, config)
    return model


def resolved(config: ModelConfig) -> ModelConfig:
    """The same configuration with ``norm`` and ``norm_eps`` named where they were left to the weights.

    Raises KitError where they stand in a file that cannot be read.
    """
    if config.norm != "auto" and config.norm_eps >= 0:
        return config
    family = DETECTORS[config.detector]
    pretrained = config.weights != "none"
    norm = family.pretrained_norm if pretrained else "batch"
    eps = TORCH_EPS if config.weights in ("none", "imagenet") else family.coco_eps
    if config.backbone and config.norm_eps < 0:
        eps = timm_detectors.norm_eps(config.backbone) or eps
    if pretrained and config.weights not in ("coco", "imagenet"):
        norm, eps = _saved_norm(Path(config.weights), norm, eps)
    return dataclasses.replace(
        config,
        norm=norm if config.norm == "auto" else config.norm,
        norm_eps=eps if config.norm_eps < 0 else config.norm_eps,
    )


def load_initial_weights(model: nn.Module, config: ModelConfig) -> list[str]:
    """Put the configured starting weights into a new detector; the names of tensors that stayed random.

    ``coco`` and a file fill all that fits (a head for other classes does not), ``imagenet`` the backbone.
    Raises KitError where a download is impossible, or a file is none of this detector's.
    """
    if config.weights == "none":
        return []
    family = DETECTORS[config.detector]
    if config.weights == "imagenet" and config.backbone:
        return _load_body(model, timm_detectors.pretrained(config.backbone), "the ImageNet weights")
    if config.weights == "imagenet":
        return _load_backbone(model, _downloaded(family.imagenet, config))
    if config.weights == "coco":
        return _load_fitting(model, _downloaded(family.coco, config), "the COCO weights")
    weights = _state_dict(load_checkpoint(Path(config.weights), _CHECK_WEIGHTS))
    if config.backbone and not any(name.startswith("backbone.") for name in weights):
        of_body = timm_detectors.from_file(config.backbone, weights, config.weights)
        return _load_body(model, of_body, config.weights)
    return _load_fitting(model, weights, config.weights)


def network_input(images: Sequence[UInt8[Tensor, "1 _h _w"]]) -> list[Float[Tensor, "3 _h2 _w2"]]:
    """Grey bytes as the detectors want them: three equal channels in 0..1, on the images' own device."""
    return [(image.to(torch.float32) / 255).expand(3, -1, -1) for image in images]


def _tiny(_: ModelConfig, classes: int) -> nn.Module:
    """FCOS of about a million parameters: four strides from 4 on, for small images and training from scratch."""
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
    """A stem of stride 4 and residual stages, each after the first halving the size."""

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
        for name, wanted, blocks in zip(self.stages, _TINY_CHANNELS, _TINY_BLOCKS, strict=True):
            stride = 1 if name == self.stages[0] else 2
            shortcut = nn.Sequential(
                nn.Conv2d(channels, wanted, 1, stride=stride, bias=False), nn.BatchNorm2d(wanted)
            )
            first = BasicBlock(channels, wanted, stride, shortcut)
            self.add_module(name, nn.Sequential(first, *(BasicBlock(wanted, wanted) for _ in range(blocks - 1))))
            channels = wanted


class _NoExtraLevel(detection.backbone_utils.ExtraFPNBlock):
    """The pyramid as it is: torchvision would otherwise append a pooled level."""

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        return results, names


def _torchvision(name: str) -> Callable[[ModelConfig, int], nn.Module]:
    def build_one(_: ModelConfig, classes: int) -> nn.Module:
        return getattr(detection, name)(weights=None, weights_backbone=None, num_classes=classes)

    return build_one


def _timm(kind: str) -> Family:
    def build_one(config: ModelConfig, classes: int) -> nn.Module:
        return timm_detectors.build_timm(kind, config.backbone, config.fpn_channels, classes)

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
    "fcos_tiny": Family(_tiny, coco=None, imagenet=None, pretrained_norm="batch"),
    **{f"{kind}_timm": _timm(kind) for kind in timm_detectors.KINDS},
}


def _lower_floors(model: nn.Module, config: ModelConfig) -> None:
    # Faster R-CNN keeps its floors in its heads, the one-stage detectors in themselves.
    holder: Any = getattr(model, "roi_heads", model)
    holder.score_thresh = config.score_floor
    holder.nms_thresh = config.nms_iou
    holder.detections_per_img = config.detections_per_image
    if isinstance(rpn := getattr(model, "rpn", None), RegionProposalNetwork):
        rpn.score_thresh = 0.0  # the 320 px variant drops proposals below .05 otherwise


def _freeze_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _freeze_norms(child)


def _downloaded(weights: WeightsEnum | None, config: ModelConfig) -> Mapping[str, Tensor]:
    if weights is None:
        raise KitError(
            f"weights that exist for {config.detector}", f"model.weights={config.weights}",
            f"--set model.weights={'imagenet fills the backbone, ' if config.backbone else ''}none trains from "
            "scratch; a file of an earlier run works too",
        )  # fmt: skip
    goal = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    start = goal.stem.rpartition("-")[2]  # torchvision's names end with the first digits of the hash
    try:
        # Not get_state_dict: it takes a file that is there as it is, and runs the code in it.
        if not goal.exists():
            goal.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(goal), start, progress=True)
    except (OSError, RuntimeError) as error:
        raise KitError(
            f"to download the {config.weights} weights of {config.detector}",
            str(error) or type(error).__name__,
            f"fetch {weights.url} elsewhere and put it at {goal}; --set model.weights=none goes without",
        ) from error
    if not (found := sha256(goal)).startswith(start):
        raise KitError(f"{goal} to have a SHA-256 that begins with {start}", found, f"fetch {weights.url} anew")
    return load_checkpoint(goal, f"fetch {weights.url} anew")


def _state_dict(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    inner = checkpoint.get("state_dict", checkpoint)
    return inner if isinstance(inner, dict) else {}


def _saved_norm(path: Path, norm: str, eps: float) -> tuple[str, float]:
    """The norm and its epsilon as a checkpoint of the kit names them, else those given."""
    kit = load_checkpoint(path, _CHECK_WEIGHTS).get("kit", {})
    saved = kit.get("model", {}) if isinstance(kit, dict) else {}
    found = (saved.get("norm", norm), saved.get("norm_eps", eps)) if isinstance(saved, dict) else (saved, None)
    if found[0] not in ("batch", "frozen") or not isinstance(found[1], float) or not 0 <= found[1] < 1:
        raise KitError(f"{path} to name its norm and norm_eps", ", ".join(map(repr, found)), _CHECK_WEIGHTS)
    return found[0], found[1]


def _load_backbone(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    # A MobileNet's layers stand under "features." in the classifier, at the top in the detector's body.
    bare = {name.removeprefix("features."): tensor for name, tensor in weights.items()}
    return _load_body(model, bare, "the ImageNet weights")


def _load_body(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> list[str]:
    _load_fitting(model.get_submodule("backbone.body"), weights, source)
    return [name for name in model.state_dict() if not name.startswith("backbone.body.")]


def _fits(found: object, own: Tensor) -> bool:
    return (
        isinstance(found, Tensor)
        and found.layout == own.layout
        and found.shape == own.shape
        and torch.can_cast(found.dtype, own.dtype)
    )


def _load_fitting(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> list[str]:
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and _fits(tensor, own[name])}
    missing = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    if len(fitting) < len(own) / 2:
        raise KitError(
            f"{source} to fit this detector", f"{len(fitting)} of its {len(own)} tensors do",
            "choose the model.detector that the file was made with",
        )  # fmt: skip
    model.load_state_dict(fitting, strict=False)
    return missing
