"""Mean average precision as pycocotools computes it, from tables, with three ways to read the curve.

The matching is done once per image and class; thresholds on the score only cut its tail, because a lower
detection never takes a truth away from a higher one.
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
# pycocotools compares with this where a threshold of 1 is asked for.
_HIGHEST_IOU = 1 - 1e-10


@dataclass(frozen=True)
class ClassMatches:
    """One class's detections by falling score; ties stand in the order of image_id, then of the table."""

    scores: Float64[np.ndarray, " n"]
    hits: Bool[np.ndarray, " n"]
    images: Int64[np.ndarray, " n"]  # index into Matches.image_ids
    rows: Int64[np.ndarray, " n"]  # row of the detections table, counted from 0
    truths: Int64[np.ndarray, " n"]  # row of the truth table that a hit found, -1 where it is none
    positives: Int64[np.ndarray, " images"]  # true boxes of the class on each image


@dataclass(frozen=True)
class Matches:
    """Which detection found a true box, per class (those of the truth and those only predicted)."""

    image_ids: tuple[str, ...]
    classes: Mapping[str, ClassMatches]


@dataclass(frozen=True)
class ClassScore:
    """Average precision of one class at IoU .5, and how many boxes it was computed from."""

    ap50: float
    ap50_area: float
    ap50_11: float
    boxes: int
    detections: int


@dataclass(frozen=True)
class Scores:
    """Mean average precision over the classes that have truth; NaN where none has."""

    map50: float  # COCO's 101 points
    map50_area: float  # area under the precision envelope
    map50_11: float  # VOC's 11 points
    map50_95: float  # mean over IoU .50, .55, ... .95, 101 points
    per_class: Mapping[str, ClassScore]
    images: int


def score_detections(truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str]) -> Scores:
    """Score ``detections`` (image_id, corners, score, label) against ``truth`` (image_id, corners, label).

    ``image_ids`` names every evaluated image, also those without truth or detections; a row on another
    image raises ValueError. A class with truth and no detection counts 0; a class without truth drops out
    of the mean, its detections with it.
    """
    matchings = _matchings(truth, detections, image_ids, COCO_IOUS)
    at_half = matchings[0]
    per_class = {
        label: ClassScore(
            ap50=_class_ap(found, "coco101"),
            ap50_area=_class_ap(found, "area"),
            ap50_11=_class_ap(found, "voc11"),
            boxes=int(found.positives.sum()),
            detections=len(found.scores),
        )
        for label, found in _with_truth(at_half).items()
    }
    return Scores(
        map50=_mean([part.ap50 for part in per_class.values()]),
        map50_area=_mean([part.ap50_area for part in per_class.values()]),
        map50_11=_mean([part.ap50_11 for part in per_class.values()]),
        map50_95=_mean([mean_average_precision(matches) for matches in matchings]),
        per_class=per_class,
        images=len(at_half.image_ids),
    )


def threshold_curve(
    truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str], thresholds: Sequence[float]
) -> list[tuple[float, float]]:
    """(threshold, map50) with only the detections of at least that score, from a single matching.

    It never rises: the envelope at a recall is a maximum over the detections that are left.
    """
    matches = match(truth, detections, image_ids)
    return [(threshold, mean_average_precision(matches, threshold)) for threshold in thresholds]


def precision_recall(
    truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str]
) -> dict[str, tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]]:
    """(recall, precision) after each detection by falling score, for each class with truth; IoU .5."""
    found = _with_truth(match(truth, detections, image_ids))
    return {label: _curve(part.hits, int(part.positives.sum())) for label, part in found.items()}


def match(
    truth: pd.DataFrame,
    detections: pd.DataFrame,
    image_ids: Iterable[str],
    iou_threshold: float = MATCH_IOU,
) -> Matches:
    """Match as pycocotools does: per image and class, by falling score (ties in the order of the table).

    Each of the best 100 takes the free true box of highest IoU, if that reaches ``iou_threshold``; of two
    equal ones the later. The rest of an image's detections of the class are left out.
    """
    return _matchings(truth, detections, image_ids, (iou_threshold,))[0]


def mean_average_precision(matches: Matches, threshold: float = -math.inf, variant: Variant = "coco101") -> float:
    """The mean over the classes with truth, of the detections scored ``threshold`` or higher."""
    return _mean([_class_ap(found, variant, threshold) for found in _with_truth(matches).values()])


def average_precision(hits: Bool[np.ndarray, " n"], positives: int, variant: Variant = "coco101") -> float:
    """Average precision of one class from its hits by falling score; NaN without positives.

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


def _class_ap(found: ClassMatches, variant: Variant, threshold: float = -math.inf) -> float:
    kept = np.searchsorted(-found.scores, -threshold, side="right")
    return average_precision(found.hits[:kept], int(found.positives.sum()), variant)


def _with_truth(matches: Matches) -> dict[str, ClassMatches]:
    return {label: found for label, found in matches.classes.items() if found.positives.any()}


def _curve(
    hits: Bool[np.ndarray, " n"], positives: int
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    found = np.cumsum(hits)
    return found / positives, found / np.arange(1, len(hits) + 1)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _matchings(
    truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Iterable[str], ious: Sequence[float]
) -> list[Matches]:
    """One matching per IoU threshold; ordering and overlaps are computed once for all of them."""
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
            label: ClassMatches(
                scores[part], hits[part], of_image[part], rows[part], taken[part], positives[number]
            )
            for number, (label, part) in enumerate(zip(labels, slices, strict=True))
        }
        return Matches(tuple(images), classes)

    return [matches(iou) for iou in ious]


@dataclass(frozen=True)
class _Pairs:
    """A detection and a true box of one image and class; by detection, then best first, the later on ties."""

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
    found = order[start[detection] + _rank_in_run(detection)]
    iou = iou_pairs(boxes[detection], true_boxes[found])
    near = np.flatnonzero(iou >= min(lowest, _HIGHEST_IOU))
    near = near[np.lexsort((-found[near], -iou[near], detection[near]))]
    return _Pairs(detection[near], found[near], iou[near])


def _greedily_taken(pairs: _Pairs, keys: Int64[np.ndarray, " n"], iou: float) -> Int64[np.ndarray, " n"]:
    """All images and classes at once: in each, the first pair left is a match and removes its rivals.

    As many rounds as an image has true boxes of one class, at most. -1 for a detection that takes none.
    """
    taken = np.full(len(keys), -1)
    left = np.flatnonzero(pairs.iou >= iou)
    while len(left):
        leader = _first_of_run(keys[pairs.detection[left]])
        taken[pairs.detection[left[leader]]] = pairs.truth[left[leader]]
        won = left[leader][np.cumsum(leader) - 1]
        rival = (pairs.detection[left] == pairs.detection[won]) | (pairs.truth[left] == pairs.truth[won])
        left = left[~rival]
    return taken


def _keys(table: pd.DataFrame, images: pd.Index, labels: pd.Index, name: str) -> Int64[np.ndarray, " n"]:
    """One number per image and class, ordered by class, then by image."""
    image = images.get_indexer(pd.Index(table["image_id"])).astype(np.int64)
    if (image < 0).any():
        strangers = sorted(table["image_id"][image < 0].unique())
        raise ValueError(f"{name} on images that are not evaluated: {first_few(strangers)}")
    return labels.get_indexer(pd.Index(table["label"])).astype(np.int64) * len(images) + image


def _first_of_run(values: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """True where a run of equal neighbours begins; the values are not negative."""
    return np.diff(values, prepend=-1) != 0


def _rank_in_run(values: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """0, 1, 2 ... within each run of equal neighbours."""
    starts = np.flatnonzero(_first_of_run(values))
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))
