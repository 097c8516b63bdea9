"""Starting weights: downloaded, from a file, or none; and the norm layers that they were trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum

from kit.config import ModelConfig
from kit.core.errors import KitError, reason
from kit.core.files import sha256
from kit.core.json_files import read_record
from kit.detectors import timm_backbones
from kit.detectors.checkpoints import load_checkpoint, not_finite
from kit.detectors.class_rows import by_label, saved_labels
from kit.detectors.hub_weights import HUB, WeightsRecord, cached, starting_file
from kit.detectors.networks import DETECTORS, TORCH_EPS
from kit.detectors.set_detectors import SetDetector, converted_weights, read_family
from kit.detectors.weights_source import FILE, PUBLISHED, RANDOM, RUN, WeightsSource

_CHECK_WEIGHTS = "check model.weights: coco, imagenet, none or the path of a weights file"


def resolve_norms(config: ModelConfig) -> ModelConfig:
    """The configuration with explicit ``norm`` and ``norm_eps``: ``auto`` and -1 become those of the weights.

    Raises KitError if the weights are a file that cannot be read.
    """
    config = dataclasses.replace(config, weights=config.start)
    if config.norm != "auto" and config.norm_eps >= 0:
        return config
    family = DETECTORS[config.detector]
    pretrained = config.weights != "none"
    norm = family.pretrained_norm if pretrained else "batch"
    eps = TORCH_EPS if config.weights in ("none", "imagenet") else family.coco_eps
    if config.backbone and config.norm_eps < 0:
        eps = timm_backbones.norm_eps(config.backbone) or eps
    if pretrained and config.weights not in ("coco", "imagenet"):
        norm, eps = _saved_norm(Path(config.weights), norm, eps)
    return dataclasses.replace(
        config,
        norm=norm if config.norm == "auto" else config.norm,
        norm_eps=eps if config.norm_eps < 0 else config.norm_eps,
    )


def load_initial_weights(
    model: nn.Module, config: ModelConfig, record: Path | None = None, labels: Sequence[str] = ()
) -> list[str]:
    """Load the configured starting weights into a new detector; returns the names of tensors that stay random.

    ``coco`` and a file fill every tensor that fits (a head for other classes does not), ``imagenet`` fills the
    backbone. Of a checkpoint of kit the class rows are taken by the names of ``labels``, which are the detector's.
    ``record`` is the run's file that keeps which weights D-FINE and RF-DETR started from.
    Raises KitError if a download fails, or if a file is not of this detector or holds NaN or infinite weights.
    """
    if config.start == "none":
        return []
    if isinstance(model, SetDetector) and config.weights != "imagenet":
        return _load_set_detector(model, config, record, labels)
    family = DETECTORS[config.detector]
    if config.weights == "imagenet":
        return _load_imagenet(model, config)
    if config.weights == "coco":
        return _load_fitting(model, _downloaded(family.coco, config), "the COCO weights")
    weights = _weights_by_label(model, load_checkpoint(Path(config.weights), _CHECK_WEIGHTS), labels)
    if config.backbone and not any(name.startswith("backbone.") for name in weights):
        body_weights = timm_backbones.convert_classifier_weights(config.backbone, weights, config.weights)
        return _load_body(model, body_weights, config.weights)
    return _load_fitting(model, weights, config.weights)


def _load_imagenet(model: nn.Module, config: ModelConfig) -> list[str]:
    if config.backbone:
        return _load_body(model, timm_backbones.pretrained_weights(config.backbone), "the ImageNet weights")
    return _load_backbone(model, _downloaded(DETECTORS[config.detector].imagenet, config))


def _load_set_detector(
    model: SetDetector, config: ModelConfig, record: Path | None, labels: Sequence[str]
) -> list[str]:
    repository = read_family(config.detector).sizes[config.size].repository
    path = starting_file(config, repository, record)
    weights = _weights_by_label(model, load_checkpoint(path, _CHECK_WEIGHTS), labels)
    if not any(name.startswith("network.") for name in weights):  # not a checkpoint of kit, but as published
        weights = {name: tensor for name, tensor in weights.items() if _is_plain(tensor)}
        weights = converted_weights(model, weights) if weights else {}
    return _load_fitting(model, weights, str(path))


def _downloaded(weights: WeightsEnum | None, config: ModelConfig) -> Mapping[str, Tensor]:
    if weights is None:
        raise KitError(
            f"weights that exist for {config.detector}", f"model.weights={config.weights}",
            f"--set model.weights={'imagenet fills the backbone, ' if config.backbone else ''}none trains from "
            "scratch; the checkpoint of an earlier run works too",
        )  # fmt: skip
    path = _torchvision_file(weights)
    prefix = path.stem.rpartition("-")[2]  # torchvision's file names end with the first digits of the SHA-256
    try:
        # Not get_state_dict: it does not check an existing file, and runs code from it.
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), prefix, progress=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise KitError(
            f"to download the {config.weights} weights of {config.detector}",
            reason(error),
            f"download {weights.url} elsewhere and put it at {path}, or train without: --set model.weights=none",
        ) from error
    again = f"delete it and repeat the command, or replace it with {weights.url}"
    if not (digest := sha256(path)).startswith(prefix):
        raise KitError(f"{path} to have a SHA-256 that begins with {prefix}", digest, again)
    return load_checkpoint(path, again)


def _torchvision_file(weights: WeightsEnum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def _state_dict(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = checkpoint.get("state_dict", checkpoint)
    return inner if isinstance(inner, dict) else {}


def _weights_by_label(model: nn.Module, checkpoint: Mapping[str, Any], labels: Sequence[str]) -> Mapping[str, Any]:
    weights, saved = _state_dict(checkpoint), saved_labels(checkpoint)
    return by_label(weights, saved, model.state_dict(), labels) if saved and labels else weights


def first_stage_labels(config: ModelConfig) -> tuple[str, ...]:
    """The labels of the kit checkpoint that ``model.weights`` names; none for any other start."""
    if config.start in ("none", "imagenet", "coco"):
        return ()
    return saved_labels(load_checkpoint(Path(config.weights), _CHECK_WEIGHTS))


def weights_source(config: ModelConfig, record: Path | None = None) -> WeightsSource:
    """Where the starting weights come from that ``load_initial_weights`` has just loaded, with their hash.

    ``record`` is the run's file that keeps which weights D-FINE and RF-DETR started from.
    """
    if config.start == "none":
        return WeightsSource(RANDOM)
    if config.start not in ("imagenet", "coco"):
        path = Path(config.weights)
        kind = RUN if saved_labels(load_checkpoint(path, _CHECK_WEIGHTS)) else FILE
        return WeightsSource(kind, path.name, sha256=sha256(path))
    if config.start == "coco" and record is not None and record.exists():
        known = read_record(record, WeightsRecord, f"delete {record}: the start of a training writes it")
        page = f"{HUB}/{known.repository}"
        return WeightsSource(PUBLISHED, known.file, page, known.revision, known.sha256)
    if config.start == "imagenet" and config.backbone:
        page = timm_backbones.published_at(config.backbone)
        file, revision = cached(page) or (None, "")
        return WeightsSource(PUBLISHED, config.backbone, page, revision, sha256(file) if file else "")
    family = DETECTORS[config.detector]
    weights = family.coco if config.start == "coco" else family.imagenet
    assert weights is not None  # else there was nothing to load
    path = _torchvision_file(weights)
    return WeightsSource(PUBLISHED, path.name, weights.url, sha256=sha256(path))


def _saved_norm(path: Path, norm: str, eps: float) -> tuple[str, float]:
    """The norm and its epsilon of a kit checkpoint; of another file ``norm`` and ``eps``."""
    kit = load_checkpoint(path, _CHECK_WEIGHTS).get("kit", {})
    saved = kit.get("model", {}) if isinstance(kit, dict) else {}
    name, value = (
        (saved.get("norm", norm), saved.get("norm_eps", eps)) if isinstance(saved, dict) else (saved, None)
    )
    if name not in ("batch", "frozen") or not isinstance(value, float) or not 0 <= value < 1:
        raise KitError(f"{path} to name its norm and norm_eps", f"{name!r}, {value!r}", _CHECK_WEIGHTS)
    return name, value


def _load_backbone(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    # A MobileNet's layers are named "features.*" in the classifier, without that prefix in the detector's body.
    layers = {name.removeprefix("features."): tensor for name, tensor in weights.items()}
    return _load_body(model, layers, "the ImageNet weights")


def _load_body(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> list[str]:
    _load_fitting(model.get_submodule("backbone.body"), weights, source)
    return [name for name in model.state_dict() if not name.startswith("backbone.body.")]


def _is_plain(weight: object) -> bool:
    return isinstance(weight, Tensor) and weight.layout == torch.strided and not weight.is_complex()


def _fits(weight: object, own: Tensor) -> bool:
    return (
        isinstance(weight, Tensor)
        and weight.layout == own.layout
        and weight.shape == own.shape
        and torch.can_cast(weight.dtype, own.dtype)
    )


def _load_fitting(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> list[str]:
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in own and _fits(tensor, own[name])}
    missing = [name for name in own if name not in fitting and not name.endswith("num_batches_tracked")]
    if len(fitting) < len(own) / 2:
        raise KitError(
            f"{source} to fit this detector", f"{len(fitting)} of its {len(own)} tensors do",
            "choose the model.detector of the file's weights"
            + (", and their model.size" if isinstance(model, SetDetector) else ""),
        )  # fmt: skip
    if strange := not_finite(fitting):
        raise KitError(
            f"{source} to hold finite weights", strange,
            "take another file, such as that of an earlier epoch: --set model.weights=PATH; "
            "--set model.weights=none starts at random",
        )  # fmt: skip
    model.load_state_dict(fitting, strict=False)
    return missing
