"""The location prior: the usual box of each class, and its estimated value as the answer for every image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit.boxes.geometry import CORNERS, Sizes, area, clip, image_sides, iou_matrix
from kit.core.errors import KitError
from kit.metrics.average_precision import MATCH_IOU


@dataclass(frozen=True)
class PriorBox:
    """A class's median box, and what it would score as the answer for every image."""

    label: str
    box: tuple[float, float, float, float]  # corners as fractions of the image's width and height
    hit_rate: float  # share of the class's boxes that it overlaps by IoU .5 or more
    value: float  # estimated share of the mAP, see fit_prior

    def __post_init__(self) -> None:
        x_min, y_min, x_max, y_max = self.box
        if not (0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1):
            raise ValueError(f"a prior's box has ordered corners in 0..1, not {self.box}")


@dataclass(frozen=True)
class Prior:
    """The median boxes of the classes, at least one, by falling value."""

    ranked: tuple[PriorBox, ...]

    def __post_init__(self) -> None:
        if not self.ranked:
            raise ValueError("a prior has at least one box")


def fit_prior(truth: pd.DataFrame, sizes: Sizes) -> Prior:
    """The location prior of annotations: those of the training images, never of the images that it is scored on.

    A class's box is the median of each corner, in fractions of the image's sides. Its value is its part of the
    mAP as the answer for all images with one confidence: recall (hits / boxes of the class) times precision
    (hits / images), divided by the number of classes. A class whose median box has no area is left out. Raises
    KitError if no class has a box with an area.
    """
    fractions = _fractions(truth, sizes)
    images, classes = truth["image_id"].nunique(), truth["label"].nunique()
    boxes = []
    for label, rows in sorted(truth.groupby("label").indices.items()):
        median = np.median(fractions[rows], axis=0, keepdims=True)
        if area(median)[0] > 0:
            hits = int((iou_matrix(fractions[rows], median) >= MATCH_IOU).sum())
            x_min, y_min, x_max, y_max = map(float, median[0])
            value = hits / len(rows) * hits / images / classes
            boxes.append(PriorBox(str(label), (x_min, y_min, x_max, y_max), hits / len(rows), value))
    if not boxes:
        raise KitError(
            "boxes with an area, to fit the location prior on", f"{len(truth)} boxes, none with an area",
            "check that the training images have boxes in train.csv",
        )  # fmt: skip
    return Prior(tuple(sorted(boxes, key=lambda box: -box.value)))


def _fractions(truth: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, "n 4"]:
    side = image_sides(truth["image_id"], sizes)
    boxes = clip(truth[CORNERS].to_numpy(np.float64), *side.T)
    return boxes / np.hstack([side, side])
