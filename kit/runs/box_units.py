"""Boxes that are no corners in pixels of the original image: fractions of its sides, pixels of a resized picture,
corners where width and height belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS, iou_pairs
from kit.core.errors import first_few
from kit.runs.box_reach import reach_faults
from kit.schemas.csv_text import Fault
from kit.schemas.file_names import TRAIN
from kit.schemas.fractions import MULTIPLY, fraction_boxes

_FIRST_PIXEL = 1.5  # fractions of the sides end here, also of boxes that are over the border
_LEAST_BOXES = 20  # fewer say nothing of how far the boxes of a file reach
_REACH = 0.9  # of the true boxes' reach: boxes of an original image reach as far, and not far over its border
_BETTER = 0.1  # mean overlap with the true boxes, gained by another reading
_GOOD = 0.25  # mean overlap of a detector that finds something
_SURE = 0.4  # the same of one whose scale is told by the overlap alone
_ERRORS = 5  # standard errors
_SCALES = np.exp(np.linspace(np.log(2 / 3), np.log(3 / 2), 17))
_INSIDE_SHARE = 0.95  # of the boxes are inside their images, if they are read as they are meant
_OVER = 0.05  # of the image's sides: boxes may be over the border by as much
_PIXELS = "corners in pixels of the original images"
_SCALE = (
    "scale the boxes to the original images (x by their width over the width of the resized ones, y by their "
    "height over the height of those) and adopt the file again"
)
_SCALE_OR_STATE = (
    f"{_SCALE}, with width and height of its images; or correct only width and height, if the boxes are those of "
    "the original images"
)

_MEANT: Mapping[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "two corners where x, y, width and height belong": lambda low, high: (low, high - low),
    "x, y, width and height where two corners belong": lambda low, high: (low, low + high),
    "the centre where x and y of the upper left corner belong": (
        lambda low, high: (low - (high - low) / 2, high - (high - low) / 2)
    ),
    "centre, width and height where two corners belong": lambda low, high: (low - high / 2, low + high / 2),
}
_CONVERT = (
    "write the upper left corner with the lower right one (COCO: with width and height), and adopt the file again"
)


@dataclass(frozen=True)
class _Reading:
    """Boxes (n, 4) as they may be meant, in words, with the advice to that."""

    boxes: np.ndarray
    words: str
    do: str


def unit_faults(path: Path, table: pd.DataFrame, truth: pd.DataFrame) -> list[Fault]:
    """The fault of boxes in another unit, with its advice; none if the file gives no reason for a doubt.

    What remains unseen: scales between .95 and 1.05; those above .7 of a detector that hardly overlaps the true
    boxes; fewer than 20 boxes, or 8 images of a half; on test images alone, other conventions, scales above 1 by
    which few boxes leave their images, and those from .7 to .95, which a message names.

    Args:
        path: The file.
        table: Its rows: image_id, part, corners, score, width_px and height_px (0 if the image is unknown), and
            stated: width and height of the picture as the file states them, or None.
        truth: The true boxes of ``train/``. Boxes that overlap them much better in another convention or at another
            scale are in that.
    """
    rows = table[table["width_px"] > 0]
    if fractions := _fractions(path, rows):
        return fractions
    others = _other_sizes(rows)
    if others:
        found = f"{len(others)} images of another size: {first_few(others, 3)}"
        return [Fault(path, None, found, f"{_PIXELS}, whose sizes the data set states", _SCALE_OR_STATE)]
    better = _better_readings(path, rows[rows["part"] == TRAIN], truth)
    return better or reach_faults(path, rows, truth, _PIXELS, _SCALE)


def _fractions(path: Path, rows: pd.DataFrame) -> list[Fault]:
    """One fault if the boxes of a half are fractions: the halves may come from two tools."""
    found = {str(part): (of_part, *fraction_boxes(of_part, _FIRST_PIXEL)) for part, of_part in rows.groupby("part")}
    halves = {
        part: (inside, len(of_part)) for part, (of_part, inside, are_fractions) in found.items() if are_fractions
    }
    if not halves:
        return []
    counts = [
        f"{len(inside)} of {count} boxes within the first pixel{f' of images of {part}/' if part else ''}"
        for part, (inside, count) in halves.items()
    ]
    largest = max(inside[CORNERS].to_numpy().max() for inside, _ in halves.values())
    return [
        Fault(path, None, f"{', '.join(counts)} (largest corner {largest:g})",
              f"{_PIXELS}, not fractions 0..1 of their sides", MULTIPLY)
    ]  # fmt: skip


def _other_sizes(rows: pd.DataFrame) -> list[str]:
    """Images whose stated size is not that of the picture, in words."""
    images = rows.drop_duplicates(["image_id", "part"])
    facts = images[["image_id", "width_px", "height_px", "stated"]].itertuples(index=False, name=None)
    return [
        f"{name} is {width} x {height} px, not {stated[0]} x {stated[1]}"
        for name, width, height, stated in facts
        if stated and stated != (width, height)
    ]


def _better_readings(path: Path, rows: pd.DataFrame, truth: pd.DataFrame) -> list[Fault]:
    """One fault if the boxes fit the true ones much better in another reading: the best one's."""
    truth = truth[truth["image_id"].isin(rows["image_id"])].reset_index(drop=True)
    if min(len(rows), len(truth)) < _LEAST_BOXES:
        return []
    true_boxes = truth[CORNERS].to_numpy(float)
    numbered = rows[["image_id"]].assign(box=np.arange(len(rows)))
    pairs = truth[["image_id"]].assign(true=truth.index).merge(numbered, on="image_id").sort_values("true")
    of_true, of_box = pairs["true"].to_numpy(), pairs["box"].to_numpy()
    starts = np.unique(of_true, return_index=True)[1]

    def best_overlaps(boxes: np.ndarray) -> np.ndarray:
        """The best IoU of each true box with a box of the same image, labels aside."""
        return np.maximum.reduceat(iou_pairs(true_boxes[of_true], boxes[of_box]), starts)

    def fit(boxes: np.ndarray) -> float:
        return float(best_overlaps(boxes).mean())

    before = fit(rows[CORNERS].to_numpy(float))
    sides = rows[["width_px", "height_px"]].to_numpy(float)
    likely = [reading for reading in _readings(rows, truth) if _share_inside(reading.boxes, sides) >= _INSIDE_SHARE]
    after, best = max(
        ((fit(reading.boxes), reading) for reading in likely), key=lambda pair: pair[0], default=(0, None)
    )
    if best is None or after < max(before + _BETTER, _GOOD):
        best = _at_another_scale(rows[CORNERS].to_numpy(float), best_overlaps)
        after = fit(best.boxes) if best else 0
    if best is None:
        return []
    found = f"boxes that fit the true ones better as {best.words}: mean overlap (IoU) {after:.2f}, not {before:.2f}"
    return [Fault(path, None, found, _PIXELS, best.do)]


def _at_another_scale(boxes: np.ndarray, overlaps: Callable[[np.ndarray], np.ndarray]) -> _Reading | None:
    """The boxes at the scale by which they overlap the true ones best, if that is far better than as they are.

    However far the boxes reach: a few false ones at the border hide a scale near 1. So the gain has to be more than
    chance by five standard errors.
    """
    before, scale = overlaps(boxes), np.ones(2)
    if before.mean() > 1 - _BETTER:
        return None
    for axes in ([True, True], [True, False], [False, True]):
        tried = [np.where(axes, factor, scale) for factor in _SCALES]
        scale = max([scale, *tried], key=lambda by: overlaps(boxes * np.tile(by, 2)).mean())
    scaled = boxes * np.tile(scale, 2)
    after = overlaps(scaled)
    gain = after - before
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    if after.mean() < _SURE or gain.mean() < max(_BETTER, _ERRORS * error):
        return None
    words = f"those of resized pictures, x scaled by {scale[0]:.3g} and y by {scale[1]:.3g}"
    return _Reading(scaled, words, _SCALE)


def _share_inside(boxes: np.ndarray, sides: np.ndarray) -> float:
    """The share of boxes that have an area and are inside their image, or little over its border."""
    over = _OVER * sides
    inside = (boxes[:, :2] >= -over) & (boxes[:, 2:] <= sides + over) & (boxes[:, 2:] > boxes[:, :2])
    return float(inside.all(axis=1).mean())


def _readings(rows: pd.DataFrame, truth: pd.DataFrame) -> Iterator[_Reading]:
    """The boxes in other conventions, and those of pictures made smaller by one factor, or all made one size."""
    boxes = rows[CORNERS].to_numpy(float)
    for words, meant in _MEANT.items():
        yield _Reading(np.hstack(meant(boxes[:, :2], boxes[:, 2:])), words, _CONVERT)
    sides = rows.drop_duplicates("image_id").set_index("image_id")[["width_px", "height_px"]].astype(float)
    box_sides = rows[["width_px", "height_px"]].to_numpy(float)
    true_reach = (truth[["x_max", "y_max"]].to_numpy(float) / sides.loc[truth["image_id"]].to_numpy()).max(axis=0)
    reach = (boxes[:, 2:] / box_sides).max(axis=0)
    other = (reach < _REACH * true_reach) | (reach > 1 / _REACH)
    if other.any() and (reach > 0).all():
        for factors in (true_reach / reach, box_sides * true_reach / boxes[:, 2:].max(axis=0)):
            by = np.where(other, factors, 1.0) * np.ones_like(box_sides)
            x, y = np.median(by, axis=0)
            words = f"those of resized pictures, x scaled by {x:.3g} and y by {y:.3g}"
            yield _Reading(boxes * np.tile(by, 2), words, _SCALE)
