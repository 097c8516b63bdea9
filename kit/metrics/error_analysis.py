"""What was lost, by its cause: each wrong detection and each missed box has exactly one.

After TIDE (Bolya et al., A general toolbox for identifying object detection errors, 2020): the weight of a
cause is the mAP that would be gained if it alone were repaired. The gains do not add up to what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from kit.boxes.nearest_truth import nearest_true_boxes
from kit.metrics.average_precision import MATCH_IOU, Matches, average_precision, match, mean_average_precision

# Below this overlap a box is not a misplaced one but another thing (TIDE's background threshold).
NEAR_IOU = 0.1
CAUSES = ("wrong class", "wrong place", "duplicate", "background", "missed")


@dataclass(frozen=True)
class ErrorCause:
    """A cause: how many detections (or missed boxes) have it, and the mAP that its repair alone would bring."""

    count: int
    gain: float


@dataclass(frozen=True)
class ErrorAnalysis:
    """The score, how many of how many boxes were found, and every cause of ``CAUSES`` in that order."""

    map50: float
    boxes: int
    found: int
    causes: dict[str, ErrorCause]


def analyse_errors(truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str]) -> ErrorAnalysis:
    """Split what ``detections`` (image_id, corners, score, label) lose against ``truth``.

    A detection that is no hit has the first cause that fits:

    - duplicate: it overlaps a box of its class by .5 or more, which a higher detection took;
    - wrong place: it overlaps a box of its class by .1 or more, but less than .5;
    - wrong class: it overlaps a box of another class by .5 or more;
    - background: none of these.

    A true box is missed if no detection took it and none of the wrong class or place points to it. Repairing:
    the highest detection of the wrong class (or place) on each box that nobody took becomes a hit, the others
    of that cause go; duplicates and background go; missed boxes are no longer asked for. NaN scores and gains
    where there is no truth. TIDE tests the class before the duplicate and sets detections apart that overlap
    another class by .1 to .5 ("both"): here they are background.
    """
    matches = match(truth, detections, image_ids)
    judged = _judged(matches, truth, detections)
    free = np.ones(len(truth), dtype=bool)
    free[judged.points[judged.cause == ""]] = False
    pointed = np.zeros(len(truth), dtype=bool)
    pointed[judged.points[np.isin(judged.cause, ("wrong class", "wrong place"))]] = True
    missed = free & ~pointed
    score = mean_average_precision(matches)
    counts = {cause: int((judged.cause == cause).sum()) for cause in CAUSES} | {"missed": int(missed.sum())}
    gains = {cause: _repaired(judged, truth["label"], free, missed, cause) - score for cause in CAUSES}
    causes = {cause: ErrorCause(counts[cause], gains[cause]) for cause in CAUSES}
    return ErrorAnalysis(score, len(truth), int((~free).sum()), causes)


@dataclass(frozen=True)
class _Judged:
    """Detections by falling score: label, cause ("" for a hit), and the row of the true box they point to."""

    labels: np.ndarray
    cause: np.ndarray
    points: Int64[np.ndarray, " n"]


def _judged(matches: Matches, truth: pd.DataFrame, detections: pd.DataFrame) -> _Judged:
    own, other = nearest_true_boxes(truth, detections)
    parts = list(matches.classes.values())
    nothing = np.zeros(0, dtype=np.int64)
    rows, taken, scores = (
        np.concatenate([nothing, *(getattr(part, name) for part in parts)]) for name in ("rows", "truths", "scores")
    )
    falling = np.argsort(-scores, kind="stable")
    rows, taken = rows[falling].astype(np.int64), taken[falling].astype(np.int64)
    tests = {
        "": taken >= 0,
        "duplicate": own.iou[rows] >= MATCH_IOU,
        "wrong place": own.iou[rows] >= NEAR_IOU,
        "wrong class": other.iou[rows] >= MATCH_IOU,
    }
    cause = np.select(list(tests.values()), list(tests), "background")
    points = np.select([cause == "", cause == "wrong class"], [taken, other.truth[rows]], own.truth[rows])
    return _Judged(detections["label"].to_numpy(object)[rows], cause, points)


def _repaired(
    judged: _Judged,
    true_labels: pd.Series,
    free: Bool[np.ndarray, " t"],
    missed: Bool[np.ndarray, " t"],
    cause: str,
) -> float:
    """The mAP if this cause alone did not exist."""
    asked = true_labels.to_numpy(object)[~missed if cause == "missed" else slice(None)]
    hit = judged.cause == ""
    of_cause = np.flatnonzero(judged.cause == cause)
    labels, kept = judged.labels.copy(), np.ones(len(hit), dtype=bool)
    kept[of_cause] = False
    if cause in ("wrong class", "wrong place"):
        _, highest = np.unique(judged.points[of_cause], return_index=True)
        mended = of_cause[highest]
        mended = mended[free[judged.points[mended]]]
        kept[mended] = hit[mended] = True
        labels[mended] = true_labels.to_numpy(object)[judged.points[mended]]
    parts = [
        average_precision(hit[kept & (labels == label)], int((asked == label).sum())) for label in np.unique(asked)
    ]
    return float(np.mean(parts)) if parts else np.nan
