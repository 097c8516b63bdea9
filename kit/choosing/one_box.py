"""One box per ID: the image's most valued candidate, or the location prior's box where there is none.

Validation and submission answer through the same ``decide``. Numbers are rounded to the digits of the file
before anything is compared, so that the table in memory and the CSV score alike.
"""

from __future__ import annotations

from collections.abc import Iterator
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
# Where one image is asked more often than the prior has boxes, the same boxes again, smaller each time.
_SHRINKS = (1.0, 0.8, 0.6, 0.4, 0.2)

Corners = tuple[int, ...]  # a box in units of the last written digit, so that equal means equal


@dataclass(frozen=True)
class Decision:
    """The answers in the order of the mapping, and the IDs that the prior had to answer."""

    table: pd.DataFrame
    fallback_ids: tuple[int, ...]


def decide(
    candidates: pd.DataFrame,
    mapping: pd.DataFrame,
    prior: Prior,
    sizes: Sizes,
    fallback_confidence: float = 1e-6,
) -> Decision:
    """Answer each row of ``mapping`` (ID, image_id) with one box; ``sizes`` names every image asked for.

    An ID gets its image's best candidate (image_id, corners, label, confidence, value) by value, ties in the
    order of the table; the k-th row of a repeated image the k-th best whose corners differ from the earlier
    ones. Candidates without area inside the image and those of other images are passed over. Where they run
    out, the prior answers with its best box that the image was not given before, with
    ``fallback_confidence``. Corners are rounded to 2 decimals, confidences, clipped to 0..1, to 8.
    Raises KitError where an image is asked more often than the prior has different boxes.
    """
    asked, image_of_row = np.unique(mapping["image_id"].to_numpy(dtype=object), return_inverse=True)
    pixels = np.array([sizes[image_id] for image_id in asked], dtype=np.float64).reshape(-1, 2)
    best = _ranked(candidates, pd.Index(asked), pixels)
    start, stop = (np.searchsorted(best.images, image_of_row, side=side) for side in ("left", "right"))
    choice = start + mapping.groupby("image_id").cumcount().to_numpy(np.int64)
    answered = choice < stop

    corners = np.zeros((len(mapping), 4), dtype=np.int64)
    corners[answered] = best.corners[choice[answered]]
    confidence = np.full(len(mapping), fallback_confidence)
    confidence[answered] = best.confidences[choice[answered]]
    labels = np.full(len(mapping), "", dtype=object)
    labels[answered] = best.labels[choice[answered]]

    menus = {size: _menu(prior, *size) for size in set(map(tuple, pixels[image_of_row[~answered]].tolist()))}
    offers: dict[int, Iterator[tuple[Corners, str]]] = {}
    for row in np.flatnonzero(~answered).tolist():
        image = int(image_of_row[row])
        if image not in offers:
            given = set(map(tuple, best.corners[start[row] : stop[row]].tolist()))
            offers[image] = _not_given(menus[tuple(pixels[image])], given)
        corners[row], labels[row] = _next(offers[image], asked[image])
    table = _answers(mapping, corners, confidence, labels)
    return Decision(table, tuple(table["ID"][~answered].tolist()))


def prior_answers(prior: Prior, mapping: pd.DataFrame, sizes: Sizes, confidence: float) -> pd.DataFrame:
    """The floor: every ID answered by the prior alone, a repeated image's k-th ID with its k-th box."""
    nothing = pd.DataFrame(columns=JUDGED_COLUMNS)
    return decide(nothing, mapping, prior, sizes, fallback_confidence=confidence).table


def validation_mapping(truth: pd.DataFrame, repeats: bool) -> pd.DataFrame:
    """Validation images as the test asks for them: ID (from 1) and image_id, sorted by image_id.

    One ID for each image with exactly one true box; where the competition's own mapping ``repeats`` images,
    as many IDs as true boxes for each image that has any.
    """
    boxes = truth.groupby("image_id").size()
    asked = boxes if repeats else boxes[boxes == 1]
    image_ids = np.repeat(asked.index.to_numpy(dtype=object), asked.to_numpy())
    return pd.DataFrame({"ID": np.arange(1, len(image_ids) + 1), "image_id": image_ids})


def one_box_truth(truth: pd.DataFrame, mapping: pd.DataFrame) -> pd.DataFrame:
    """The true boxes of the images that ``mapping`` asks for: what its answers are scored against."""
    return truth[truth["image_id"].isin(mapping["image_id"])].reset_index(drop=True)


def answers_to_detections(table: pd.DataFrame) -> pd.DataFrame:
    """Answers as the table that ``score_detections`` takes: the confidence is the score."""
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
    """Candidates worth giving, by image, best first; corners as whole units of the last written digit."""

    images: Int64[np.ndarray, " n"]
    corners: Int64[np.ndarray, "n 4"]
    confidences: Float64[np.ndarray, " n"]
    labels: np.ndarray


def _ranked(candidates: pd.DataFrame, asked: pd.Index, pixels: Float64[np.ndarray, "i 2"]) -> _Ranked:
    image = asked.get_indexer(pd.Index(candidates["image_id"])).astype(np.int64)
    value = candidates["value"].to_numpy(np.float64)
    rows = np.flatnonzero(image >= 0)
    rows = rows[np.lexsort((-value[rows], image[rows]))]
    corners = _written(candidates[CORNERS].to_numpy(np.float64)[rows], *pixels[image[rows]].T)
    fresh = _has_area(corners) & ~pd.DataFrame(corners).assign(image=image[rows]).duplicated().to_numpy()
    rows = rows[fresh]
    confidence, label = candidates["confidence"].to_numpy(np.float64), candidates["label"].to_numpy(dtype=object)
    return _Ranked(image[rows], corners[fresh], confidence[rows], label[rows])


def _menu(prior: Prior, width_px: float, height_px: float) -> dict[Corners, str]:
    """The prior's different boxes on an image of this size, best first, each with its label."""
    boxes = np.array([part.box for part in prior.ranked])
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shrunk = [np.hstack([centres - sides * by / 2, centres + sides * by / 2]) for by in _SHRINKS]
    side = np.array([width_px, height_px, width_px, height_px])
    corners = _written(np.concatenate(shrunk) * side, width_px, height_px)
    labels = [part.label for part in prior.ranked] * len(_SHRINKS)
    menu: dict[Corners, str] = {}
    for row in np.flatnonzero(_has_area(corners)).tolist():
        menu.setdefault(tuple(corners[row].tolist()), labels[row])
    return menu


def _not_given(menu: dict[Corners, str], given: set[Corners]) -> Iterator[tuple[Corners, str]]:
    return ((corners, label) for corners, label in menu.items() if corners not in given)


def _next(offers: Iterator[tuple[Corners, str]], image_id: str) -> tuple[Corners, str]:
    offer = next(offers, None)
    if offer is None:
        raise KitError(
            "no more IDs for one image than there are different boxes to give",
            f"{image_id} is asked for once more",
            "check the mapping for rows that repeat an image by mistake",
        )
    return offer


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
    # A whole number over a power of ten is the very float that its decimals are read back as.
    table[CORNERS] = corners / 10**CORNER_DIGITS
    return table[ANSWER_COLUMNS]


def _written(
    boxes: Float64[np.ndarray, "n 4"],
    width_px: float | Float64[np.ndarray, " n"],
    height_px: float | Float64[np.ndarray, " n"],
) -> Int64[np.ndarray, "n 4"]:
    """Corners clipped to the image, in units of the last digit that is written."""
    return np.rint(clip(boxes, width_px, height_px) * 10**CORNER_DIGITS).astype(np.int64)


def _has_area(corners: Int64[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
    return (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
