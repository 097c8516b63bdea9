"""What a page of images shows: images, true boxes, detections with their causes, orders, findings.

These are values that Python knows; ``view_page`` writes them into the page, ``docs/view.md`` documents their form.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from kit.boxes.geometry import CORNERS
from kit.data.pixel_cache import PixelCache
from kit.metrics.average_precision import ClassMatches, Matches, average_precision, mean_average_precision
from kit.metrics.error_analysis import CAUSES, RIGHT, DetectionCauses

RUN, COMPARISON, SUBMISSION, DATA = "run", "comparison", "submission", "data"
SCORE_STEPS = 10_000  # of a score, as the page holds it: a whole number
SLIDER_STEPS = 100
CAUSE_NAMES = (RIGHT, *CAUSES)
_DIGITS = 4
_CURVE_POINTS = 400


@dataclass(frozen=True)
class ViewedImage:
    """An image of the page: whose pixels, under which name, of which patient, held out by which fold (or None)."""

    pixels: PixelCache
    image_id: str
    patient: str
    fold: int | None = None
    beside: tuple[str, ...] = ()  # the images shown next to it: its copies


@dataclass(frozen=True)
class ScoredPath:
    """Detections (image_id, corners, score, label) of one path: all candidates, or the answers with one box.

    ``causes`` are those of its rows, None without a truth; ``scored`` are the images that count; ``scores`` are the
    numbers that do not follow from the rows on the page (``path_scores``).
    """

    detections: pd.DataFrame
    scored: Collection[str]
    causes: DetectionCauses | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """The detections of a run, or of a submission: its answers and its candidates.

    ``prior`` are the images that the location prior answers. ``right`` says of an image whether it is answered
    right; images without a true box are missing.
    """

    name: str
    one: ScoredPath
    many: ScoredPath
    prior: Collection[str] = ()
    right: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFinding:
    """A check of the audit that names images: its level, its words, and by image what it says of it."""

    check: str
    level: str
    text: str
    notes: Mapping[str, str]


@dataclass(frozen=True)
class View:
    """The content of a page. Images have names by which all else refers to them; orders are by falling value.

    The first order is the page's own, and divides the images over several pages if there are too many for one.
    """

    source: str
    title: str
    lead: Sequence[str]
    labels: Sequence[str]
    images: Mapping[str, ViewedImage]
    truth: pd.DataFrame
    sides: Sequence[Side]
    orders: Mapping[str, Mapping[str, float]]
    findings: Sequence[ImageFinding] = ()


def path_scores(matches: Matches, intervals: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The scores of a path at every step of the slider (0, .01, ... 1), and the curve of each class with truth.

    ``intervals`` has the 95% interval of each class's average precision without a threshold.
    """
    steps = [step / SLIDER_STEPS for step in range(SLIDER_STEPS + 1)]
    return {
        "map50": [_rounded(mean_average_precision(matches, step)) for step in steps],
        "classes": {
            label: _class_scores(matched, steps) | {"interval": [_rounded(end) for end in intervals[label]]}
            for label, matched in matches.classes.items()
            if matched.positives.any()
        },
    }


def _class_scores(matched: ClassMatches, steps: Sequence[float]) -> dict[str, Any]:
    boxes = int(matched.positives.sum())
    found = np.append(0, np.cumsum(matched.hits))
    kept = np.searchsorted(-matched.scores, [-step for step in steps], side="right")
    ranks = np.flatnonzero(matched.hits) + 1
    ranks = ranks[:: 1 + len(ranks) // _CURVE_POINTS]
    return {
        "boxes": boxes,
        "ap50": [_rounded(average_precision(matched.hits[:count], boxes)) for count in kept],
        "points": [_point(found, count, boxes) for count in kept.tolist()],
        "curve": [_point(found, rank, boxes) for rank in [*ranks.tolist(), len(matched.hits)] if rank],
    }


def _point(found: Int64[np.ndarray, " n"], count: int, boxes: int) -> list[float | None]:
    """Recall and precision of the first ``count`` detections; there is no precision without a detection."""
    return [_rounded(found[count] / boxes), _rounded(found[count] / count) if count else None]


def truth_rows(truth: pd.DataFrame, labels: Sequence[str]) -> dict[str, list[list[float]]]:
    """By image: corners in pixels and the number of the label, in the order of the table."""
    number = {label: index for index, label in enumerate(labels)}
    corners = truth[CORNERS].to_numpy(np.float64).round(1).tolist()
    rows: dict[str, list[list[float]]] = {}
    for name, box, label in zip(truth["image_id"], corners, truth["label"], strict=True):
        rows.setdefault(name, []).append([*box, number[label]])
    return rows


def detection_rows(path: ScoredPath, truth: pd.DataFrame, labels: Sequence[str]) -> dict[str, list[list[float]]]:
    """By image: corners, the number of the label, the score in steps of .0001, and, with a truth, cause and box.

    The cause is its number in ``CAUSE_NAMES``, the box its number among the image's true boxes (-1: none), both of
    ``truth``, the table that the causes refer to. Rows beyond those that are matched are left out.
    """
    table, number = path.detections, {label: index for index, label in enumerate(labels)}
    columns = [
        *table[CORNERS].to_numpy(np.float64).round(1).T.tolist(),
        [number[label] for label in table["label"]],
        score_steps(table["score"].to_numpy(np.float64)).tolist(),
    ]
    kept = np.ones(len(table), dtype=bool)
    if path.causes is not None:
        kept = path.causes.cause != ""
        rank = np.append(truth.groupby("image_id").cumcount().to_numpy(np.int64), -1)
        columns += [
            [CAUSE_NAMES.index(cause) if cause else -1 for cause in path.causes.cause],
            rank[path.causes.true_box].tolist(),
        ]
    rows: dict[str, list[list[float]]] = {}
    for name, keep, *values in zip(table["image_id"], kept.tolist(), *columns, strict=True):
        if keep:
            rows.setdefault(name, []).append(values)
    return rows


def score_steps(scores: np.ndarray) -> Int64[np.ndarray, " n"]:
    """The highest multiple of .0001 that does not exceed each score, as a whole number.

    So a score is at least a step of the slider if and only if its whole number is at least that step's.
    """
    steps = np.rint(np.clip(scores, 0, 1) * SCORE_STEPS).astype(np.int64)
    return steps - (steps / SCORE_STEPS > scores)


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), _DIGITS)
