"""The causes of errors: each wrong detection and each missed box has exactly one cause.

After TIDE (Bolya et al., A general toolbox for identifying object detection errors, 2020): a cause weighs the mAP
that its repair alone would gain. The gains do not add up to the missing mAP.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from kit.boxes.nearest_truth import nearest_true_boxes
from kit.core.json_files import FloatOrNaN
from kit.metrics.average_precision import MATCH_IOU, Matches, average_precision, match, mean_average_precision

# A box with less overlap is no misplaced box (TIDE's background threshold).
NEAR_IOU = 0.1
CAUSES = ("wrong class", "wrong place", "duplicate", "background", "missed")
RIGHT = "right"  # in place of a cause, for a hit


@dataclass(frozen=True)
class ErrorCause:
    """One cause: its number of detections or missed boxes, and the mAP that its repair alone would gain."""

    count: int
    gain: FloatOrNaN


@dataclass(frozen=True)
class ErrorAnalysis:
    """The mAP, the numbers of true boxes and of found ones, and every cause in the order of ``CAUSES``."""

    map50: FloatOrNaN
    boxes: int
    found: int
    causes: dict[str, ErrorCause]


def analyse_errors(truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str]) -> ErrorAnalysis:
    """Count the errors of ``detections`` (image_id, corners, score, label) by cause, with the mAP that each costs.

    A detection that is no hit has the first of these causes that fits:

    - duplicate: it overlaps a box of its class by .5 or more, and a detection of higher score takes that box;
    - wrong place: it overlaps a box of its class by .1 or more, but less than .5;
    - wrong class: it overlaps a box of another class by .5 or more;
    - background: none of these.

    A true box is missed if no detection takes it and none of the causes wrong class and wrong place overlaps it.
    The repairs: of the detections of the wrong class (or place) on a free true box the highest becomes a hit and
    the others are removed; duplicates and background are removed; missed boxes are removed from the truth.
    Scores and gains are NaN without true boxes. TIDE tests the class before the duplicate, and has a cause
    "both" for detections that overlap another class by .1 to .5; here they are background.
    """
    matches = match(truth, detections, image_ids)
    errors = _errors(matches, truth, detections)
    free = np.ones(len(truth), dtype=bool)
    free[errors.true_box[errors.cause == ""]] = False
    nearly_found = np.zeros(len(truth), dtype=bool)
    nearly_found[errors.true_box[np.isin(errors.cause, ("wrong class", "wrong place"))]] = True
    missed = free & ~nearly_found
    map50 = mean_average_precision(matches)
    counts = {cause: int((errors.cause == cause).sum()) for cause in CAUSES} | {"missed": int(missed.sum())}
    true_labels = _label_numbers(truth, truth)
    gains = {cause: _repaired_map50(errors, true_labels, free, missed, cause) - map50 for cause in CAUSES}
    causes = {cause: ErrorCause(counts[cause], gains[cause]) for cause in CAUSES}
    return ErrorAnalysis(map50, len(truth), int((~free).sum()), causes)


@dataclass(frozen=True)
class DetectionCauses:
    """By row of the detections: ``RIGHT``, a cause, or "" for a row beyond those that are matched; its true box.

    The true box (row of the truth) is the one that a hit takes, or that the cause refers to; -1 for background.
    """

    cause: np.ndarray
    true_box: Int64[np.ndarray, " n"]


def detection_causes(truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str]) -> DetectionCauses:
    """Why each of ``detections`` is wrong, if it is; the causes are those of ``analyse_errors``.

    They do not depend on a threshold: a detection never takes a true box from one with a higher score.
    """
    errors = _errors(match(truth, detections, image_ids), truth, detections)
    cause, true_box = np.full(len(detections), "", dtype=object), np.full(len(detections), -1)
    cause[errors.rows] = np.where(errors.cause == "", RIGHT, errors.cause)
    true_box[errors.rows] = np.where(errors.cause == "background", -1, errors.true_box)
    return DetectionCauses(cause, true_box)


@dataclass(frozen=True)
class _Errors:
    """Detections by falling score: row, place among true labels (-1: none), cause ("": a hit), row of its box."""

    rows: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    cause: np.ndarray
    true_box: Int64[np.ndarray, " n"]


def _errors(matches: Matches, truth: pd.DataFrame, detections: pd.DataFrame) -> _Errors:
    own, other = nearest_true_boxes(truth, detections)
    empty = np.zeros(0, dtype=np.int64)
    rows, taken, scores = (
        np.concatenate([empty, *(getattr(matched, name) for matched in matches.classes.values())])
        for name in ("rows", "truths", "scores")
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
    true_box = np.select([cause == "", cause == "wrong class"], [taken, other.truth[rows]], own.truth[rows])
    return _Errors(rows, _label_numbers(detections, truth)[rows], cause, true_box)


def _label_numbers(table: pd.DataFrame, truth: pd.DataFrame) -> Int64[np.ndarray, " n"]:
    """Each row's label as its place among the sorted true labels; -1 if the truth does not have it."""
    labels = pd.Index(sorted(truth["label"].unique()))
    return labels.get_indexer(pd.Index(table["label"])).astype(np.int64)


def _repaired_map50(
    errors: _Errors,
    true_labels: Int64[np.ndarray, " t"],
    free: Bool[np.ndarray, " t"],
    missed: Bool[np.ndarray, " t"],
    cause: str,
) -> float:
    """The mAP with this cause alone repaired."""
    truth = true_labels[~missed] if cause == "missed" else true_labels
    hit = errors.cause == ""
    of_cause = np.flatnonzero(errors.cause == cause)
    labels, kept = errors.labels.copy(), np.ones(len(hit), dtype=bool)
    kept[of_cause] = False
    if cause in ("wrong class", "wrong place"):
        _, highest = np.unique(errors.true_box[of_cause], return_index=True)
        repaired = of_cause[highest]
        repaired = repaired[free[errors.true_box[repaired]]]
        kept[repaired] = hit[repaired] = True
        labels[repaired] = true_labels[errors.true_box[repaired]]
    values = [
        average_precision(hit[kept & (labels == label)], int((truth == label).sum())) for label in np.unique(truth)
    ]
    return float(np.mean(values)) if values else np.nan
