"""Boxes that take no part in the training, by cause and by class: a class must not vanish without a word."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from kit.boxes.geometry import CORNERS, area
from kit.config import Config
from kit.core.errors import KitError
from kit.data.competition import TrainingData
from kit.data.images import fitted_size

_NOTICED = 0.1  # of a class's boxes
_LEAST_BOXES = 10  # of a class that may all be lost at the border by chance if it has fewer
_STEP_PX, _LARGEST_PX = 32, 8192
log = logging.getLogger("kit")


def require_large_boxes(data: TrainingData, config: Config) -> None:
    """Raise KitError if all boxes of a class are below ``augmentation.min_area_px`` at the network's size.

    A class that has more than a tenth of its boxes below it is said in the log.
    """
    size_px, least = config.model.image_size_px, config.augmentation.min_area_px
    facts = [data.pixels.facts[image_id] for image_id in data.annotations["image_id"]]
    sides = np.array([(fact.width_px, fact.height_px) for fact in facts], dtype=np.float64).reshape(-1, 2)
    fitted = np.array([fitted_size(fact.width_px, fact.height_px, size_px) for fact in facts]).reshape(-1, 2)
    areas = area(data.annotations[CORNERS].to_numpy(np.float64)) * (fitted / sides).prod(axis=1)
    labels = data.annotations["label"].to_numpy()
    lost = {label: areas[labels == label] < least for label in data.labels}
    none_left = [label for label in data.labels if lost[label].all()]
    if none_left:
        # The size at which nine tenths of each class's boxes stay, also if the augmentation makes them smaller.
        scale = math.sqrt(least / min(np.quantile(areas[labels == label], _NOTICED) for label in none_left))
        needed = size_px * scale / max(1 - config.augmentation.scale, 1 / _STEP_PX)
        larger = (math.floor(needed / _STEP_PX) + 1) * _STEP_PX
        raise KitError(
            f"boxes of at least {least:g} square pixels (augmentation.min_area_px) in every class, at "
            f"model.image_size_px={size_px}",
            "; ".join(
                f"class {label!r}: all {len(lost[label])} are smaller, the largest has "
                f"{areas[labels == label].max():.2g}" for label in none_left
            ),
            (f"--set model.image_size_px={larger}, or " if larger <= _LARGEST_PX else "") +
            "--set augmentation.min_area_px=0; if the boxes are not in pixels of the images, correct train.csv",
        )  # fmt: skip
    for label in data.labels:
        if lost[label].mean() > _NOTICED:
            log.warning(
                "class %r: %d of %d boxes are below augmentation.min_area_px=%g at model.image_size_px=%d and take "
                "no part in the training", label, lost[label].sum(), len(lost[label]), least, size_px,
            )  # fmt: skip


@dataclass(frozen=True)
class BoxLosses:
    """How many boxes an epoch's augmentation left out, of how many: by class, in the order of the labels."""

    labels: Sequence[str]
    boxes: Int64[np.ndarray, " k"]
    too_small: Int64[np.ndarray, " k"]
    at_border: Int64[np.ndarray, " k"]

    @property
    def words(self) -> str:
        """The counts for the epoch's line; empty if no box was lost."""
        small, border = int(self.too_small.sum()), int(self.at_border.sum())
        parts = [f"{small} boxes too small"] * bool(small) + [f"{border} boxes lost at the border"] * bool(border)
        return "".join(f", {part}" for part in parts)

    def warn(self, config: Config) -> None:
        """Say in the log which classes lost more than a tenth of their boxes, and why."""
        lost = self.too_small + self.at_border
        for index in np.flatnonzero(lost > _NOTICED * self.boxes).tolist():
            log.warning("class %r: %d of %d boxes took no part in this epoch: %s", self.labels[index],
                        lost[index], self.boxes[index], self._causes(index, config))  # fmt: skip

    def refuse(self, config: Config) -> None:
        """Raise KitError if a class lost all boxes: to their size, or ten or more by both causes."""
        lost = self.too_small + self.at_border
        by_size = self.too_small == self.boxes
        for index in np.flatnonzero(
            (lost == self.boxes) & (by_size | (lost >= _LEAST_BOXES)) & (lost > 0)
        ).tolist():
            raise KitError(
                "boxes of every class in an epoch",
                f"class {self.labels[index]!r}: all {self.boxes[index]} boxes were left out: "
                f"{self._causes(index, config)}",
                "lower augmentation.min_visibility, augmentation.shift and augmentation.min_area_px, or raise "
                "model.image_size_px, under another --run NAME",
            )

    def _causes(self, index: int, config: Config) -> str:
        return (
            f"{self.too_small[index]} below augmentation.min_area_px={config.augmentation.min_area_px:g} at "
            f"model.image_size_px={config.model.image_size_px}, {self.at_border[index]} lost at the border "
            f"(augmentation.min_visibility={config.augmentation.min_visibility:g})"
        )
