"""The true box that each detection overlaps most, of its own class and of the other classes, on the same image.

Scoring gives each true box to one detection; here each detection is compared as if it were the only one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from kit.boxes.geometry import CORNERS, iou_pairs


@dataclass(frozen=True)
class NearestTrueBox:
    """For each detection the row of the true box that it overlaps most (-1: none), and their IoU, 0..1."""

    truth: Int64[np.ndarray, " n"]
    iou: Float64[np.ndarray, " n"]


def nearest_true_boxes(truth: pd.DataFrame, detections: pd.DataFrame) -> tuple[NearestTrueBox, NearestTrueBox]:
    """The nearest true boxes of each detection's own class, and those of the other classes; rows count from 0.

    Both tables have image_id, corners and label. Of true boxes with the same IoU the later one is nearest. A
    detection that overlaps none has row -1 and IoU 0.
    """
    images = pd.Index(truth["image_id"].unique())
    true_image, image = images.get_indexer(truth["image_id"]), images.get_indexer(detections["image_id"])
    order = np.argsort(true_image, kind="stable")
    start, stop = (np.searchsorted(true_image[order], image, side=side) for side in ("left", "right"))
    row = np.repeat(np.arange(len(detections)), stop - start)
    rank = np.arange(len(row)) - np.repeat(np.cumsum(stop - start) - (stop - start), stop - start)
    true_row = order[start[row] + rank]
    iou = iou_pairs(detections[CORNERS].to_numpy(np.float64)[row], truth[CORNERS].to_numpy(np.float64)[true_row])
    labels = pd.Index(truth["label"].unique())
    same = labels.get_indexer(detections["label"])[row] == labels.get_indexer(truth["label"])[true_row]
    own, other = (_best(row[kept], true_row[kept], iou[kept], len(detections)) for kept in (same, ~same))
    return own, other


def hits_alone(truth: pd.DataFrame, detections: pd.DataFrame, iou: float) -> Bool[np.ndarray, " n"]:
    """Which detections would be hits as their image's only box: they overlap a box of their class by ``iou``."""
    own, _ = nearest_true_boxes(truth, detections)
    return own.iou >= iou


def _best(
    row: Int64[np.ndarray, " p"], true_row: Int64[np.ndarray, " p"], iou: Float64[np.ndarray, " p"], count: int
) -> NearestTrueBox:
    best, overlap = np.full(count, -1), np.zeros(count)
    order = np.lexsort((true_row, iou, row))
    order = order[iou[order] > 0]
    # Of several assignments to one element numpy keeps the last: the largest IoU.
    best[row[order]] = true_row[order]
    overlap[row[order]] = iou[order]
    return NearestTrueBox(best, overlap)
