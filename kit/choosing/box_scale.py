"""Boxes that are too wide or too high throughout a class: a factor on each side, learned on held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit.boxes.geometry import CORNERS, Sizes, clip, image_sides
from kit.boxes.nearest_truth import nearest_true_boxes
from kit.choosing.calibration import LEAST_HITS
from kit.metrics.average_precision import MATCH_IOU

# Boxes that miss by their size are what the factors repair: learned from hits alone they would be too near to 1.
_NEAR_IOU = 0.3
_SMALLEST, _LARGEST = 0.8, 1.25


@dataclass(frozen=True)
class Factors:
    """What the width and the height of a box are multiplied by."""

    width: float
    height: float

    def __post_init__(self) -> None:
        if not all(_SMALLEST <= factor <= _LARGEST for factor in (self.width, self.height)):
            raise ValueError(f"a factor of a box's side lies in {_SMALLEST} .. {_LARGEST}, not {self}")


@dataclass(frozen=True)
class BoxScale:
    """The factors of each class with LEAST_HITS hits or more, and of all classes together for the others."""

    pooled: Factors
    classes: Mapping[str, Factors]

    def applied(self, boxes: pd.DataFrame, sizes: Sizes) -> pd.DataFrame:
        """The boxes (image_id, corners, label), their sides times the factors of their class, cut at the border.

        The centre stays, unless the box is cut. Other columns stay as they are.
        """
        label, labels = pd.factorize(boxes["label"])
        factors = [self.classes.get(str(name), self.pooled) for name in labels]
        by = np.array([(of.width, of.height) for of in factors]).reshape(-1, 2)[label]
        corners = boxes[CORNERS].to_numpy(np.float64)
        centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, _sides(corners) * by
        scaled = clip(
            np.hstack([centres - sides / 2, centres + sides / 2]), *image_sides(boxes["image_id"], sizes).T
        )
        return boxes.assign(**dict(zip(CORNERS, scaled.T, strict=True)))


def fit_box_scale(candidates: pd.DataFrame, truth: pd.DataFrame) -> BoxScale:
    """Learn the factors from candidates (image_id, corners, score, label) and the true boxes of their images.

    Of each true box the candidate of its class with the highest score counts that overlaps it by IoU .3 or more;
    a factor is the median of true side / candidate's side, limited to .8 .. 1.25. Without any such candidate the
    factors are 1.
    """
    own, _ = nearest_true_boxes(truth, candidates)
    near = np.flatnonzero(own.iou >= _NEAR_IOU)
    near = near[np.argsort(-candidates["score"].to_numpy(np.float64)[near], kind="stable")]
    near = near[np.unique(own.truth[near], return_index=True)[1]]
    found, true = (
        table[CORNERS].to_numpy(np.float64) for table in (candidates.iloc[near], truth.iloc[own.truth[near]])
    )
    has_area = (_sides(found) > 0).all(axis=1) & (_sides(true) > 0).all(axis=1)
    near, ratios = near[has_area], _sides(true[has_area]) / _sides(found[has_area])
    labels = candidates["label"].to_numpy(object)[near]
    is_hit = own.iou[near] >= MATCH_IOU
    hits = {label: int(is_hit[labels == label].sum()) for label in sorted(set(labels))}
    classes = {
        str(label): _factors(ratios[labels == label]) for label, count in hits.items() if count >= LEAST_HITS
    }
    return BoxScale(_factors(ratios), classes)


def scaled_out_of_fold(
    judged: Mapping[str, pd.DataFrame],
    candidates: pd.DataFrame,
    truth: pd.DataFrame,
    sizes: Sizes,
    groups: Mapping[str, int],
) -> dict[str, pd.DataFrame]:
    """By rule, the judged candidates with the sides of their class, each group's learned on the other groups.

    ``groups`` has the number of every image's group.
    """
    of_candidates, of_truth = (table["image_id"].map(groups).to_numpy(np.int64) for table in (candidates, truth))
    scales = {
        group: fit_box_scale(candidates[of_candidates != group], truth[of_truth != group])
        for group in sorted(set(groups.values()))
    }

    def scaled(table: pd.DataFrame) -> pd.DataFrame:
        group = table["image_id"].map(groups).to_numpy(np.int64)
        parts = [scale.applied(table[group == number], sizes) for number, scale in scales.items()]
        return pd.concat(parts).sort_index() if parts else table

    return {name: scaled(table) for name, table in judged.items()}


def _sides(corners: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 2"]:
    return corners[:, 2:] - corners[:, :2]


def _factors(ratios: Float64[np.ndarray, "n 2"]) -> Factors:
    if not len(ratios):
        return Factors(1.0, 1.0)
    width, height = np.clip(np.median(ratios, axis=0), _SMALLEST, _LARGEST).tolist()
    return Factors(width, height)
