"""The location prior: where the boxes of each class usually lie, and what answering with that alone would score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit.boxes.geometry import CORNERS, Sizes, area, clip, iou_matrix
from kit.core.errors import KitError
from kit.metrics.average_precision import MATCH_IOU


@dataclass(frozen=True)
class PriorBox:
    """One class's usual place: its median box, and what answering with it for every image would bring."""

    label: str
    box: tuple[float, float, float, float]  # corners as fractions of the image's width and height
    hit_rate: float  # share of the class's boxes that it overlaps at IoU .5
    value: float  # its estimated share of the mAP, see fit_prior

    def __post_init__(self) -> None:
        x_min, y_min, x_max, y_max = self.box
        if not (0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1):
            raise ValueError(f"a prior's box has ordered corners in 0..1, not {self.box}")


@dataclass(frozen=True)
class Prior:
    """The classes' usual boxes, the most valuable first; at least one."""

    ranked: tuple[PriorBox, ...]

    def __post_init__(self) -> None:
        if not self.ranked:
            raise ValueError("a prior has at least one box")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"ranked": [{**asdict(part), "box": list(part.box)} for part in self.ranked]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Prior:
        """The inverse of ``to_dict``, exactly."""
        return cls(tuple(PriorBox(**{**part, "box": tuple(part["box"])}) for part in content["ranked"]))


def fit_prior(truth: pd.DataFrame, sizes: Sizes) -> Prior:
    """The location prior of the annotations given: of the training part, never of the images it is judged on.

    Per class the median of each corner, in fractions of the image's sides. Its value is what it would add to
    the mAP if it answered for all images with one confidence: recall (hits / boxes of the class) times
    precision (hits / images), divided by the number of classes. A class whose median box has no area is left
    out. Raises KitError where no class has a box.
    """
    fractions = _fractions(truth, sizes)
    images, classes = truth["image_id"].nunique(), truth["label"].nunique()
    parts = []
    for label, rows in sorted(truth.groupby("label").indices.items()):
        median = np.median(fractions[rows], axis=0, keepdims=True)
        if area(median)[0] > 0:
            hits = int((iou_matrix(fractions[rows], median) >= MATCH_IOU).sum())
            x_min, y_min, x_max, y_max = map(float, median[0])
            value = hits / len(rows) * hits / images / classes
            parts.append(PriorBox(str(label), (x_min, y_min, x_max, y_max), hits / len(rows), value))
    if not parts:
        raise KitError(
            "annotations to fit the location prior on", f"{len(truth)} boxes, none with an area",
            "check that the training part of the data holds boxes",
        )  # fmt: skip
    return Prior(tuple(sorted(parts, key=lambda part: -part.value)))


def _fractions(truth: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, "n 4"]:
    side = np.array([sizes[image_id] for image_id in truth["image_id"]], dtype=np.float64).reshape(-1, 2)
    boxes = clip(truth[CORNERS].to_numpy(np.float64), side[:, 0], side[:, 1])
    return boxes / np.hstack([side, side])
