"""D-FINE and RF-DETR, which predict a set of boxes without suppression, in torchvision's calling convention.

The networks are those of transformers, an optional extra. Their sizes are data: dfine.json and rfdetr.json.
"""

from __future__ import annotations

import copy
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image

from kit.config import ModelConfig
from kit.core.errors import KitError
from kit.core.json_files import read_record

LOSS_KINDS = ("class", "box", "rest")
_CLASS_LOSSES, _BOX_LOSSES, _COUNTS = ("loss_vfl", "loss_ce"), ("loss_bbox", "loss_giou"), "cardinality_error"
_LEAST_VERSION = (5, 18)  # before, the main loss of D-FINE was taken over the denoising queries
_INSTALL = "pip install -U 'transformers>=5.18', or pip install -e '.[detr]' in kit's own folder"


@dataclass(frozen=True)
class Size:
    """A size of a family: its repository of weights ("" for none), and the fields of transformers' configuration.

    The image's side is a multiple of ``multiple_px``; the queries are chosen among the cells of the ``strides``.
    """

    repository: str
    multiple_px: int
    strides: tuple[int, ...]
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class SetFamily:
    """A family: where its facts are from, transformers' names, and how pixels in 0..1 are normalised."""

    source: str
    model: str
    configuration: str
    body: str  # the part with the pretrained weights
    unused: tuple[str, ...]  # weights that no loss reaches
    boxes_only: tuple[str, ...]  # weights that a batch without boxes does not reach
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    sizes: Mapping[str, Size]


class SetDetector(nn.Module):
    """A network of transformers that takes images (3, h, w) in 0..1 of any sizes, and targets as torchvision's.

    In training it returns the losses by ``LOSS_KINDS``, whose sum is the loss; else, for each image, boxes, labels
    from 1 and falling scores after the suppression. Each image is padded with zeros at the right and below to the
    least square that the network takes, in training to that of the batch's largest image; boxes may be none.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, family: SetFamily, size: Size) -> None:
        super().__init__()
        self.network: Any = network
        self._family, self._size = family, size
        self.score_thresh, self.nms_thresh, self.detections_per_img = 0.0, 1.0, 1  # set as every detector's
        for name in ("mean", "deviation"):
            values = torch.tensor(getattr(family, name)).reshape(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def body(self) -> nn.Module:
        """The part with the pretrained weights."""
        return self.network.get_submodule(self._family.body)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """The losses in training, else the detections of each image."""
        if self.training:
            assert targets is not None, "training takes targets"
            return self._losses(images, targets)
        return [
            self._suppressed(found, image.shape[-2:])
            for image, found in zip(images, self.candidates(images), strict=True)
        ]

    def candidates(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """The network's own answer for each image, by falling score, before clipping and suppression."""
        sides = [self.side_px(image) for image in images]
        found: dict[int, dict[str, Tensor]] = {}
        for side in sorted(set(sides)):
            chosen = [index for index, own in enumerate(sides) if own == side]
            out = self.network(pixel_values=self.padded([images[index] for index in chosen], side))
            answers = decoded(out.logits.float(), out.pred_boxes.float(), side, self.score_thresh)
            found |= dict(zip(chosen, answers, strict=True))
        return [found[index] for index in range(len(images))]

    def side_px(self, image: Tensor) -> int:
        """The side of the least square for an image, which has as many cells as the network has queries."""
        return fitting_side(max(image.shape[-2:]), self._size, self.network.config.num_queries)

    def padded(self, images: Sequence[Tensor], side_px: int) -> Float[Tensor, "n 3 s s"]:
        """Images in squares as the network takes them: normalised, with zeros at the right and below."""
        normal = ((image - self.mean) / self.deviation for image in images)
        return torch.stack([pad(one, (0, side_px - one.shape[2], 0, side_px - one.shape[1])) for one in normal])

    def _losses(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        # One pass for all: RF-DETR's loss counts the boxes of all processes, so each of them makes one pass.
        side = max(self.side_px(image) for image in images)
        labels = [
            {
                "class_labels": target["labels"] - 1,
                "boxes": box_convert(target["boxes"].float(), "xyxy", "cxcywh") / side,
            }
            for target in targets
        ]
        out = self.network(pixel_values=self.padded(images, side), labels=labels)
        losses = by_kind(out.loss_dict, self.network.config)
        # Several processes wait for the gradient of every weight, also in a batch that does not reach it.
        reached = [0 * self.network.get_parameter(name).sum() for name in self._family.boxes_only]
        return losses | {"rest": sum(reached, losses["rest"])}

    def _suppressed(self, found: Mapping[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
        boxes = clip_boxes_to_image(found["boxes"], (size[0], size[1]))
        inside = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)  # others lie in the padding
        boxes, scores, labels = boxes[inside], found["scores"][inside], found["labels"][inside]
        kept = batched_nms(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
        return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}


def build_set_detector(config: ModelConfig, classes: int) -> nn.Module:
    """The configured size of D-FINE or RF-DETR with random weights, for ``classes`` findings and the background.

    Raises KitError if transformers is missing or too old.
    """
    family = read_family(config.detector)
    size = family.sizes[config.size]
    detector = SetDetector(_network(family, size, classes - 1), family, size)
    for name in family.unused:
        detector.network.get_parameter(name).requires_grad_(False)
    return detector


def read_family(name: str) -> SetFamily:
    """The facts of a family that ship with kit."""
    path = Path(__file__).with_name(f"{name}.json")
    return read_record(path, SetFamily, "install kit anew: the file belongs to it")


def fitting_side(longest_px: int, size: Size, queries: int) -> int:
    """The least multiple of the size's ``multiple_px`` that holds ``longest_px`` and has a cell for each query."""
    side = math.ceil(longest_px / size.multiple_px) * size.multiple_px
    while sum((side // stride) ** 2 for stride in size.strides) < queries:
        side += size.multiple_px
    return side


def decoded(
    logits: Float[Tensor, "n q k"], boxes: Float[Tensor, "n q 4"], side_px: int, floor: float
) -> list[dict[str, Tensor]]:
    """The q best pairs of box and class of each image above ``floor``: boxes as corners in pixels of the square.

    As the families' own ``post_process_object_detection``: one box may be there under several classes.
    """
    scores, places = logits.sigmoid().flatten(1).topk(logits.shape[1], dim=1)
    queries, labels = places // logits.shape[2], places % logits.shape[2] + 1
    corners = box_convert(boxes, "cxcywh", "xyxy") * side_px
    chosen = corners.gather(1, queries[:, :, None].expand(-1, -1, 4))
    return [
        {"boxes": box[kept], "labels": label[kept], "scores": score[kept]}
        for box, label, score, kept in zip(chosen, labels, scores, scores > floor, strict=True)
    ]


def by_kind(losses: Mapping[str, Tensor], configuration: Any) -> dict[str, Tensor]:
    """The parts of a loss summed to ``LOSS_KINDS``; their sum is the loss that transformers returns.

    D-FINE's parts are weighted already, and the rest are the losses of its distributions; RF-DETR's are not.
    """
    weights = {
        name: getattr(configuration, f"{name.removeprefix('loss_')}_loss_coefficient", 1.0) for name in _BOX_LOSSES
    } | {"loss_ce": getattr(configuration, "class_loss_coefficient", 1.0)}
    zero = next(iter(losses.values())).new_zeros(())
    sums = dict.fromkeys(LOSS_KINDS, zero)
    for name, loss in losses.items():
        if name.startswith(_COUNTS):  # a count of boxes for the log, without a gradient
            continue
        kind = "class" if name.startswith(_CLASS_LOSSES) else "box" if name.startswith(_BOX_LOSSES) else "rest"
        sums[kind] = sums[kind] + loss * weights.get("_".join(name.split("_")[:2]), 1.0)
    return sums


def in_32_bits(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss that takes its tensors in 32 bits, also in mixed precision.

    RF-DETR's takes the logarithms of a score and of 1 less the score: half precision rounds sure scores to 0 and 1.
    """

    def wide(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    @functools.wraps(loss)
    def computed(logits: Tensor, *others: Any, **named: Any) -> Any:
        with torch.autocast(logits.device.type, enabled=False):
            return loss(wide(logits), *map(wide, others), **{name: wide(value) for name, value in named.items()})

    return computed


def converted_weights(detector: SetDetector, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are published, by the names of ``detector``; those that do not fit it are left out."""
    family, own = detector._family, detector.network
    transformers = _transformers(family)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it reports the head of other classes, which the run's log does too
    transformers.logging.disable_progress_bar()
    try:
        network, found = getattr(transformers, family.model).from_pretrained(
            None, config=copy.deepcopy(own.config), state_dict=dict(weights), ignore_mismatched_sizes=True,
            output_loading_info=True,
        )  # fmt: skip
    finally:
        transformers.logging.set_verbosity(verbosity)
        transformers.logging.enable_progress_bar()
    state = network.state_dict()
    unfilled = set(found["missing_keys"]) | {key[0] for key in found["mismatched_keys"]}
    random = {state[name].data_ptr() for name in unfilled if name in state}  # one tensor may have several names
    return {f"network.{name}": tensor for name, tensor in state.items() if tensor.data_ptr() not in random}


def _network(family: SetFamily, size: Size, labels: int) -> Any:
    transformers = _transformers(family)
    configuration = getattr(transformers, family.configuration)(num_labels=labels, **size.configuration)
    network: Any = getattr(transformers, family.model)(configuration)
    network.loss_function = in_32_bits(network.loss_function)
    return network


def _transformers(family: SetFamily) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise KitError(f"transformers, which {family.model} is from", "it is not installed", _INSTALL) from error
    version = str(transformers.__version__)
    is_old = tuple(map(int, re.findall(r"\d+", version)[:2])) < _LEAST_VERSION
    if is_old or not hasattr(transformers, family.model):
        raise KitError(f"transformers 5.18 or later, with {family.model}", version, _INSTALL)
    return transformers
