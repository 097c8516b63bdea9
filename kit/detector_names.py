"""The names of the detectors, their sizes, and the knobs that only some of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit.core.errors import KitError, shortened
from kit.core.knob_values import as_text

DETECTOR_NAMES = (
    "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn", "fcos_tiny",
    "fasterrcnn_timm", "retinanet_timm", "fcos_timm", "dfine", "rfdetr",
)  # fmt: skip
TIMM_DETECTORS = tuple(name for name in DETECTOR_NAMES if name.endswith("_timm"))
SET_DETECTORS = ("dfine", "rfdetr")  # they predict a set of boxes; from transformers, an optional extra
SIZES = ("tiny", "n", "s", "m", "l")
_TIMM_EXAMPLE = "--set model.detector=fasterrcnn_timm --set model.backbone=efficientnet_lite0"
_FPN_STEP = 32  # the heads normalise channels in 32 groups
# The knobs that only some detectors have: these, and how one of them is chosen.
_OF_SOME = {
    "model.size": (SET_DETECTORS, "--set model.detector=dfine"),
    "model.fpn_channels": (TIMM_DETECTORS, _TIMM_EXAMPLE),
    "training.layer_decay": (("rfdetr",), "--set model.detector=rfdetr"),
    "training.decay_embeddings": (("rfdetr",), "--set model.detector=rfdetr"),
}


def require_used(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise KitError for a knob among ``values`` that is not at its default and that ``model.detector`` has not."""
    detector = values["model.detector"]
    for key, (detectors, choose_one) in _OF_SOME.items():
        if key not in values or values[key] == defaults[key] or detector in detectors:
            continue
        default = as_text(defaults[key])
        if detector in DETECTOR_NAMES:  # another name is refused by itself
            raise KitError(
                f"{key} with a detector that has it: {', '.join(detectors)}",
                f"{key}={shortened(as_text(values[key]))} with model.detector={detector}",
                f"leave out {key}, or write {key}={default}, or choose such a detector: {choose_one}",
            )


def require_backbone(detector: str, backbone: str, fpn_channels: int) -> None:
    """Raise KitError for a timm detector without a backbone, another with one, or channels that no head takes."""
    if (detector in TIMM_DETECTORS) != bool(backbone):
        raise KitError(
            f"model.backbone with a detector among {', '.join(TIMM_DETECTORS)}, and with no other",
            f"model.detector={detector} model.backbone={backbone or '(empty)'}",
            f"{_TIMM_EXAMPLE}, for example",
        )
    if fpn_channels % _FPN_STEP:
        raise KitError(
            f"model.fpn_channels to be a multiple of {_FPN_STEP}", f"{fpn_channels}",
            "--set model.fpn_channels=128, for example",
        )  # fmt: skip
