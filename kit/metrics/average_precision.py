"""Mean average precision of tables of boxes, as pycocotools computes it, with three ways to read the curve.

The matching is done once per image and class. A threshold on the score only cuts its tail, because a detection
never takes a true box from one with a higher score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from kit.boxes.geometry import CORNERS, iou_pairs
from kit.core.errors import first_few

MATCH_IOU = 0.5
MOST_PER_IMAGE_AND_CLASS = 100
Variant = Literal["coco101", "area", "voc11"]
RECALL_POINTS = {"coco101": np.linspace(0, 1, 101), "voc11": np.linspace(0, 1, 11)}
COCO_IOUS = tuple(float(iou) for iou in np.linspace(0.5, 0.95, 10))
# pycocotools compares with this number if the threshold is 1.
_HIGHEST_IOU = 1 - 1e-10


@dataclass(frozen=True)
class ClassMatches:
    """One class's detections by falling score; ties are in the order of image_id, then of the table."""

    scores: Float64[np.ndarray, " n"]
    hits: Bool[np.ndarray, " n"]
    images: Int64[np.ndarray, " n"]  # index into Matches.image_ids
    rows: Int64[np.ndarray, " n"]  # row of the detections table, counted from 0
    truths: Int64[np.ndarray, " n"]  # row of the true box that a hit takes, -1 if it is no hit
    positives: Int64[np.ndarray, " images"]  # true boxes of the class on each image


@dataclass(frozen=True)
class Matches:
    """Which detections take a true box, by class: the classes of the truth and those only predicted."""

    image_ids: tuple[str, ...]
    classes: Mapping[str, ClassMatches]


@dataclass(frozen=True)
class ClassScore:
    """Average precision of one class at IoU .5, and its numbers of true boxes and detections."""

    ap50: float
    ap50_area: float
    ap50_11: float
    boxes: int
    detections: int


@dataclass(frozen=True)
class Scores:
    """Mean average precision over the classes that have true boxes; NaN if none has."""

    map50: float  # COCO's 101 points
    map50_area: float  # area under the precision envelope
    map50_11: float  # VOC's 11 points
    map50_95: float  # mean over IoU .50, .55, ... .95, 101 points
    per_class: Mapping[str, ClassScore]
    images: int


def score_detections(truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str]) -> Scores:
    """Score ``detections`` (image_id, corners, score, label) against ``truth`` (image_id, corners, label).

    ``image_ids`` names every evaluated image, also those without true boxes or detections. A class with true
    boxes and no detection counts 0; a class without true boxes is left out of the mean. Raises ValueError for a
    row on another image.
    """
    matchings = _matchings(truth, detections, image_ids, COCO_IOUS)
    at_half = matchings[0]
    per_class = {
        label: ClassScore(
            ap50=_class_ap(matched, "coco101"),
            ap50_area=_class_ap(matched, "area"),
            ap50_11=_class_ap(matched, "voc11"),
            boxes=int(matched.positives.sum()),
            detections=len(matched.scores),
        )
        for label, matched in _with_truth(at_half).items()
    }
    return Scores(
        map50=_mean([class_score.ap50 for class_score in per_class.values()]),
        map50_area=_mean([class_score.ap50_area for class_score in per_class.values()]),
        map50_11=_mean([class_score.ap50_11 for class_score in per_class.values()]),
        map50_95=_mean([mean_average_precision(matches) for matches in matchings]),
        per_class=per_class,
        images=len(at_half.image_ids),
    )


def threshold_curve(
    truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str], thresholds: Sequence[float]
) -> list[tuple[float, float]]:
    """(threshold, map50) for each threshold, with the detections of that score or more, from a single matching.

    The curve never rises: the envelope at a recall is a maximum over the remaining detections.
    """
    matches = match(truth, detections, image_ids)
    return [(threshold, mean_average_precision(matches, threshold)) for threshold in thresholds]


def precision_recall(
    truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str]
) -> dict[str, tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]]:
    """(recall, precision) after each detection by falling score, for each class with true boxes; IoU .5."""
    classes = _with_truth(match(truth, detections, image_ids))
    return {label: _curve(matched.hits, int(matched.positives.sum())) for label, matched in classes.items()}


def match(
    truth: pd.DataFrame,
    detections: pd.DataFrame,
    image_ids: Iterable[str],
    iou_threshold: float = MATCH_IOU,
) -> Matches:
    """Match as pycocotools does: per image and class, by falling score (ties in the order of the table).

    Each of the best 100 detections takes the free true box of highest IoU, if that is ``iou_threshold`` or more;
    of two boxes with the same IoU it takes the later one. The other detections are left out. Raises ValueError
    for a row on an image that ``image_ids`` does not name.
    """
    return _matchings(truth, detections, image_ids, (iou_threshold,))[0]


def mean_average_precision(matches: Matches, threshold: float = -math.inf, variant: Variant = "coco101") -> float:
    """The mean over the classes with true boxes, from the detections of score ``threshold`` or more."""
    return _mean([_class_ap(matched, variant, threshold) for matched in _with_truth(matches).values()])


def average_precision(hits: Bool[np.ndarray, " n"], positives: int, variant: Variant = "coco101") -> float:
    """Average precision of one class from its hits by falling score; NaN if there are no positives.

    ``coco101`` and ``voc11`` read the precision envelope (the best precision at this recall or a higher one)
    at 101 or 11 recalls; ``area`` integrates it. Sources: Everingham et al., The Pascal VOC Challenge (2010);
    Lin et al., Microsoft COCO (2014).
    """
    if not positives:
        return math.nan
    recall, precision = _curve(hits, positives)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if variant == "area":
        return float(envelope[hits].sum() / positives)
    reached = np.searchsorted(recall, RECALL_POINTS[variant])
    return float(np.append(envelope, 0.0)[reached].mean())


def _class_ap(matched: ClassMatches, variant: Variant, threshold: float = -math.inf) -> float:
    kept = np.searchsorted(-matched.scores, -threshold, side="right")
    return average_precision(matched.hits[:kept], int(matched.positives.sum()), variant)


def _with_truth(matches: Matches) -> dict[str, ClassMatches]:
    return {label: matched for label, matched in matches.classes.items() if matched.positives.any()}


def _curve(
    hits: Bool[np.ndarray, " n"], positives: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    true_positives = np.cumsum(hits)
    return true_positives / positives, true_positives / np.arange(1, len(hits) + 1)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _matchings(
    truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str], ious: Sequence[float]
) -> list[Matches]:
    """A matching per IoU threshold; the order and the overlaps are computed once for all of them."""
    images = pd.Index(sorted(set(image_ids)))
    labels = pd.Index(sorted({*truth["label"].unique(), *detections["label"].unique()}))
    true_keys = _keys(truth, images, labels, "truth")
    keys = _keys(detections, images, labels, "detections")
    scores = detections["score"].to_numpy(np.float64)

    rows = np.lexsort((-scores, keys))
    rows = rows[_rank_in_run(keys[rows]) < MOST_PER_IMAGE_AND_CLASS]
    keys, scores = keys[rows], scores[rows]
    pairs = _overlaps(
        truth[CORNERS].to_numpy(np.float64), true_keys,
        detections[CORNERS].to_numpy(np.float64)[rows], keys, lowest=min(ious),
    )  # fmt: skip

    of_label, of_image = np.divmod(keys, max(len(images), 1))
    falling = np.lexsort((-scores, of_label))
    bounds = np.searchsorted(of_label[falling], np.arange(len(labels) + 1))
    positives = np.bincount(true_keys, minlength=len(labels) * len(images)).reshape(len(labels), len(images))
    slices = [falling[start:stop] for start, stop in itertools.pairwise(bounds)]

    def matches(iou: float) -> Matches:
        taken = _greedily_taken(pairs, keys, min(iou, _HIGHEST_IOU))
        hits = taken >= 0
        classes = {
            label: ClassMatches(scores[its], hits[its], of_image[its], rows[its], taken[its], positives[number])
            for number, (label, its) in enumerate(zip(labels, slices, strict=True))
        }
        return Matches(tuple(images), classes)

    return [matches(iou) for iou in ious]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a detection and a true box of its image and class, by detection, then by falling IoU, last first."""

    detection: Int64[np.ndarray, " p"]
    truth: Int64[np.ndarray, " p"]
    iou: Float64[np.ndarray, " p"]


def _overlaps(
    true_boxes: Float64[np.ndarray, "t 4"],
    true_keys: Int64[np.ndarray, " t"],
    boxes: Float64[np.ndarray, "n 4"],
    keys: Int64[np.ndarray, " n"],
    lowest: float,
) -> _Pairs:
    order = np.argsort(true_keys, kind="stable")
    start, stop = (np.searchsorted(true_keys[order], keys, side=side) for side in ("left", "right"))
    detection = np.repeat(np.arange(len(keys)), stop - start)
    true_row = order[start[detection] + _rank_in_run(detection)]
    iou = iou_pairs(boxes[detection], true_boxes[true_row])
    kept = np.flatnonzero(iou >= min(lowest, _HIGHEST_IOU))
    kept = kept[np.lexsort((-true_row[kept], -iou[kept], detection[kept]))]
    return _Pairs(detection[kept], true_row[kept], iou[kept])


def _greedily_taken(pairs: _Pairs, keys: Int64[np.ndarray, " n"], iou: float) -> Int64[np.ndarray, " n"]:
    """The row of the true box that each detection takes, -1 if none.

    All images and classes advance together: in each, the first remaining pair is a match and removes the pairs
    of its detection and of its true box. The rounds are at most the true boxes of one class on one image.
    """
    taken = np.full(len(keys), -1)
    remaining = np.flatnonzero(pairs.iou >= iou)
    while len(remaining):
        leads = _first_of_run(keys[pairs.detection[remaining]])
        taken[pairs.detection[remaining[leads]]] = pairs.truth[remaining[leads]]
        match = remaining[leads][np.cumsum(leads) - 1]
        same_detection = pairs.detection[remaining] == pairs.detection[match]
        same_truth = pairs.truth[remaining] == pairs.truth[match]
        remaining = remaining[~(same_detection | same_truth)]
    return taken


def _keys(table: pd.DataFrame, images: pd.Index, labels: pd.Index, name: str) -> Int64[np.ndarray, " n"]:
    """Each row's number of its image and class, ordered by class, then by image."""
    image = images.get_indexer(pd.Index(table["image_id"])).astype(np.int64)
    if (image < 0).any():
        unknown = sorted(table["image_id"][image < 0].unique())
        raise ValueError(f"{name} on images that are not evaluated: {first_few(unknown)}")
    return labels.get_indexer(pd.Index(table["label"])).astype(np.int64) * len(images) + image


def _first_of_run(values: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """True where a run of equal neighbours begins; the values are not negative."""
    return np.diff(values, prepend=-1) != 0


def _rank_in_run(values: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """0, 1, 2 ... within each run of equal neighbours."""
    starts = np.flatnonzero(_first_of_run(values))
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))
