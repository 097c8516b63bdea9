"""Each detection's nearest true box of its own class and of another, on the same image.

Scoring asks which detection took a box first; here every detection is looked at as if it stood alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from kit.boxes.geometry import CORNERS, iou_pairs


@dataclass(frozen=True)
class NearestTrueBox:
    """For each detection the row of the true box that it overlaps most (-1 for none), and the overlap, 0..1."""

    truth: Int64[np.ndarray, " n"]
    iou: Float64[np.ndarray, " n"]


def nearest_true_boxes(truth: pd.DataFrame, detections: pd.DataFrame) -> tuple[NearestTrueBox, NearestTrueBox]:
    """The nearest true box of the own class and of the other classes; rows are counted from 0.

    Both tables have image_id, corners and label; detections on images without truth have no neighbour. Of
    true boxes overlapped alike the later one counts.
    """
    images = pd.Index(truth["image_id"].unique())
    of_truth, of_row = images.get_indexer(truth["image_id"]), images.get_indexer(detections["image_id"])
    order = np.argsort(of_truth, kind="stable")
    start, stop = (np.searchsorted(of_truth[order], of_row, side=side) for side in ("left", "right"))
    row = np.repeat(np.arange(len(detections)), stop - start)
    place = np.arange(len(row)) - np.repeat(np.cumsum(stop - start) - (stop - start), stop - start)
    true = order[start[row] + place]
    iou = iou_pairs(detections[CORNERS].to_numpy(np.float64)[row], truth[CORNERS].to_numpy(np.float64)[true])
    same = detections["label"].to_numpy(object)[row] == truth["label"].to_numpy(object)[true]
    same = same.astype(bool)
    own, other = (_best(row[kept], true[kept], iou[kept], len(detections)) for kept in (same, ~same))
    return own, other


def hits_alone(truth: pd.DataFrame, detections: pd.DataFrame, iou: float) -> Bool[np.ndarray, " n"]:
    """Which detections would be right as the only box of their image: a box of their class at ``iou`` or more."""
    own, _ = nearest_true_boxes(truth, detections)
    return own.iou >= iou


def _best(
    row: Int64[np.ndarray, " p"], true: Int64[np.ndarray, " p"], iou: Float64[np.ndarray, " p"], count: int
) -> NearestTrueBox:
    best, overlap = np.full(count, -1), np.zeros(count)
    order = np.lexsort((true, iou, row))
    order = order[iou[order] > 0]
    # Of several assignments to one place the last stays: the largest overlap.
    best[row[order]] = true[order]
    overlap[row[order]] = iou[order]
    return NearestTrueBox(best, overlap)
