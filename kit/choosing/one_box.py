"""One box per ID: the image's candidate of highest value, or the location prior's box if it has none.

Validation and submission use the same ``decide``. Numbers are rounded to the digits of the CSV before boxes are
compared, so that the table in memory and the CSV have the same score.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from kit.boxes.geometry import CORNERS, Sizes, clip
from kit.choosing.location_prior import Prior
from kit.core.errors import KitError

JUDGED_COLUMNS = ["image_id", *CORNERS, "label", "confidence", "value"]
SCORED_COLUMNS = ["image_id", *CORNERS, "score", "label"]
ANSWER_COLUMNS = ["ID", "image_id", *CORNERS, "confidence", "label"]
CORNER_DIGITS = 2
CONFIDENCE_DIGITS = 8
# If an image has more IDs than the prior has boxes, the boxes are used again, smaller each time.
_SHRINKS = (1.0, 0.8, 0.6, 0.4, 0.2)

Corners = tuple[int, ...]  # a box in units of the last written digit, so that equal boxes compare equal


@dataclass(frozen=True)
class Decision:
    """The answers in the order of the mapping, and the IDs answered with the location prior."""

    table: pd.DataFrame
    fallback_ids: tuple[int, ...]


def decide(
    candidates: pd.DataFrame,
    mapping: pd.DataFrame,
    prior: Prior | Mapping[str, Prior],
    sizes: Sizes,
    fallback_confidence: float = 1e-6,
) -> Decision:
    """Answer each row of ``mapping`` with one box.

    An ID gets its image's candidate of highest value, ties in the order of the table. The k-th row of a repeated
    image gets the k-th best candidate whose corners differ from the earlier ones. Candidates without area inside
    the image are left out. If an image has too few candidates, the location prior answers with its best box that
    the image does not have yet.

    Args:
        candidates: image_id, corners, label, confidence, value; rows of other images are left out.
        mapping: ID and image_id; an image may have several IDs.
        prior: the boxes for images with too few candidates, for all images or by image_id.
        sizes: (width_px, height_px) of every image of the mapping.
        fallback_confidence: the confidence of the prior's boxes.

    Returns:
        The answers, corners rounded to 2 decimals, confidences clipped to 0..1 and rounded to 8.

    Raises:
        KitError: an image has more IDs than there are different boxes.
    """
    image_ids, image_of_row = np.unique(mapping["image_id"].to_numpy(dtype=object), return_inverse=True)
    pixels = np.array([sizes[image_id] for image_id in image_ids], dtype=np.float64).reshape(-1, 2)
    repeat = mapping.groupby("image_id").cumcount().to_numpy(np.int64)
    best = _ranked(candidates, pd.Index(image_ids), pixels, only_best=not repeat.any())
    start, stop = (np.searchsorted(best.images, image_of_row, side=side) for side in ("left", "right"))
    choice = start + repeat
    answered = choice < stop

    corners = np.zeros((len(mapping), 4), dtype=np.int64)
    corners[answered] = best.corners[choice[answered]]
    confidence = np.full(len(mapping), fallback_confidence)
    chosen = candidates[["confidence", "label"]].iloc[best.rows[choice[answered]]]
    confidence[answered] = chosen["confidence"].to_numpy(np.float64)
    labels = np.full(len(mapping), "", dtype=object)
    labels[answered] = chosen["label"].to_numpy(dtype=object)

    prior_boxes = functools.cache(_prior_boxes)
    unused: dict[int, Iterator[tuple[Corners, str]]] = {}
    for row in np.flatnonzero(~answered).tolist():
        image = int(image_of_row[row])
        if image not in unused:
            used = set(map(tuple, best.corners[start[row] : stop[row]].tolist()))
            of_image = prior if isinstance(prior, Prior) else prior[image_ids[image]]
            unused[image] = _without(prior_boxes(of_image, *pixels[image].tolist()), used)
        corners[row], labels[row] = _next(unused[image], image_ids[image])
    table = _answers(mapping, corners, confidence, labels)
    return Decision(table, tuple(table["ID"][~answered].tolist()))


def prior_answers(prior: Prior, mapping: pd.DataFrame, sizes: Sizes, confidence: float) -> pd.DataFrame:
    """Every ID answered with the prior alone, a repeated image's k-th ID with the k-th box."""
    no_candidates = pd.DataFrame(columns=JUDGED_COLUMNS)
    return decide(no_candidates, mapping, prior, sizes, fallback_confidence=confidence).table


def validation_mapping(truth: pd.DataFrame, repeats: bool) -> pd.DataFrame:
    """An ID table for validation images, shaped like the test's: ID (from 1) and image_id, sorted by image_id.

    An image with exactly one true box has one ID. If the competition's mapping ``repeats`` images, each image with
    true boxes has as many IDs as boxes.
    """
    boxes = truth.groupby("image_id").size()
    ids = boxes if repeats else boxes[boxes == 1]
    image_ids = np.repeat(ids.index.to_numpy(dtype=object), ids.to_numpy())
    return pd.DataFrame({"ID": np.arange(1, len(image_ids) + 1), "image_id": image_ids})


def one_box_truth(truth: pd.DataFrame, mapping: pd.DataFrame) -> pd.DataFrame:
    """The true boxes of the images in ``mapping``: its answers are scored against them."""
    return truth[truth["image_id"].isin(mapping["image_id"])].reset_index(drop=True)


def answers_to_detections(table: pd.DataFrame) -> pd.DataFrame:
    """Answers as a table of detections: the confidence is the score."""
    return table.rename(columns={"confidence": "score"})[SCORED_COLUMNS]


def submission_text(table: pd.DataFrame) -> str:
    """The answers as CSV: the competition's eight columns, 2 decimals for corners, 8 for confidences, LF."""
    text = table[ANSWER_COLUMNS].astype(object)
    for name in CORNERS:
        text[name] = [f"{value:.{CORNER_DIGITS}f}" for value in table[name]]
    text["confidence"] = [f"{value:.{CONFIDENCE_DIGITS}f}" for value in table["confidence"]]
    return str(text.to_csv(index=False, lineterminator="\n"))


@dataclass(frozen=True)
class _Ranked:
    """Different candidates with an area, by image and falling value; corners in units of the last written digit."""

    images: Int64[np.ndarray, " n"]
    corners: Int64[np.ndarray, "n 4"]
    rows: Int64[np.ndarray, " n"]  # of the candidates


def _ranked(
    candidates: pd.DataFrame, image_ids: pd.Index, pixels: Float64[np.ndarray, "i 2"], only_best: bool
) -> _Ranked:
    """The candidates of the images; with ``only_best`` the best one of each image alone, which needs no order."""
    image = image_ids.get_indexer(pd.Index(candidates["image_id"])).astype(np.int64)
    rows = np.flatnonzero(image >= 0)
    boxes = np.stack([candidates[name].to_numpy(np.float64)[rows] for name in CORNERS], axis=1)
    corners = _written(boxes, *pixels[image[rows]].T)
    has_area = _has_area(corners)
    rows, corners = rows[has_area], corners[has_area]
    image, value = image[rows], candidates["value"].to_numpy(np.float64)[rows]
    if only_best:
        order = _first_highest(image, value, len(image_ids))
    else:
        order = np.lexsort((-value, image))
        order = order[~pd.DataFrame(corners).assign(image=image).iloc[order].duplicated().to_numpy()]
    return _Ranked(image[order], corners[order], rows[order])


def _first_highest(
    group: Int64[np.ndarray, " n"], value: Float64[np.ndarray, " n"], groups: int
) -> Int64[np.ndarray, " g"]:
    """The index of the highest value of each group that has one, by group; of equal values the first."""
    highest, first = np.full(groups, -np.inf), np.full(groups, -1)
    np.maximum.at(highest, group, value)
    best = np.flatnonzero(value == highest[group])[::-1]
    first[group[best]] = best  # of several assignments numpy keeps the last: the first in the table
    return first[first >= 0]


def _prior_boxes(prior: Prior, width_px: float, height_px: float) -> dict[Corners, str]:
    """The prior's different boxes on an image of this size, by falling value, with their labels."""
    boxes = np.array([prior_box.box for prior_box in prior.ranked])
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shrunk = [np.hstack([centres - sides * by / 2, centres + sides * by / 2]) for by in _SHRINKS]
    side = np.array([width_px, height_px, width_px, height_px])
    corners = _written(np.concatenate(shrunk) * side, width_px, height_px)
    labels = [prior_box.label for prior_box in prior.ranked] * len(_SHRINKS)
    label_of: dict[Corners, str] = {}
    for row in np.flatnonzero(_has_area(corners)).tolist():
        label_of.setdefault(tuple(corners[row].tolist()), labels[row])
    return label_of


def _without(boxes: dict[Corners, str], used: set[Corners]) -> Iterator[tuple[Corners, str]]:
    return ((corners, label) for corners, label in boxes.items() if corners not in used)


def _next(boxes: Iterator[tuple[Corners, str]], image_id: str) -> tuple[Corners, str]:
    box = next(boxes, None)
    if box is None:
        raise KitError(
            "no more IDs of one image than there are different boxes",
            f"{image_id} has more IDs",
            "check the mapping for rows that repeat an image by mistake",
        )
    return box


def _answers(
    mapping: pd.DataFrame,
    corners: Int64[np.ndarray, "n 4"],
    confidence: Float64[np.ndarray, " n"],
    labels: np.ndarray,
) -> pd.DataFrame:
    table = pd.DataFrame({
        "ID": mapping["ID"].to_numpy(np.int64),
        "image_id": mapping["image_id"].to_numpy(dtype=object),
        "confidence": np.round(np.clip(confidence, 0, 1), CONFIDENCE_DIGITS),
        "label": labels,
    })  # fmt: skip
    # A whole number over a power of ten is exactly the float that is read back from its decimals.
    table[CORNERS] = corners / 10**CORNER_DIGITS
    return table[ANSWER_COLUMNS]


def _written(
    boxes: Float64[np.ndarray, "n 4"],
    width_px: float | Float64[np.ndarray, " n"],
    height_px: float | Float64[np.ndarray, " n"],
) -> Int64[np.ndarray, "n 4"]:
    """Corners clipped to the image, in units of the last written digit."""
    return np.rint(clip(boxes, width_px, height_px) * 10**CORNER_DIGITS).astype(np.int64)


def _has_area(corners: Int64[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
    return (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
