"""Boxes in another unit than pixels of the original image: shares of its sides, or pixels of a resized picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS, iou_pairs
from kit.core.errors import first_few
from kit.schemas.csv_text import Fault
from kit.schemas.file_names import TRAIN

_FIRST_PIXEL = 1.5  # fractions of the sides end here, also of boxes that are over the border
_LEAST_BOXES = 20  # fewer say nothing of how far the boxes of a file reach
_REACH = 0.9  # of the true boxes' reach: boxes of an original image reach as far, and not far over its border
_BETTER = 0.1  # mean overlap with the true boxes, gained by another scale
_PIXELS = "corners in pixels of the original images"
_SCALE = (
    "scale the boxes to the original images (x by their width over the width of the resized ones, y by their "
    "height over the height of those) and adopt the file again"
)
_SCALE_OR_STATE = (
    f"{_SCALE}, with width and height of its images; or correct only width and height, if the boxes are those of "
    "the original images"
)


def unit_faults(
    path: Path, table: pd.DataFrame, sizes: Mapping[str, tuple[int, int]], truth: pd.DataFrame
) -> list[Fault]:
    """The fault of boxes in another unit, with its advice; none if the file gives no reason for a doubt.

    Args:
        path: The file.
        table: Its rows: image_id, part, corners, width_px and height_px (0 if the image is unknown).
        sizes: Width and height of the pictures as the file states them, by file name.
        truth: The true boxes of ``train/``. Boxes that overlap them much better at another scale, and reach less
            far than they do or over the border, are those of resized pictures.
    """
    rows = table[table["width_px"] > 0]
    if fractions := _fractions(path, rows):
        return fractions
    others = _other_sizes(rows, sizes)
    if others:
        found = f"{len(others)} images of another size: {first_few(others, 3)}"
        return [Fault(path, None, found, f"{_PIXELS}, whose sizes the data set states", _SCALE_OR_STATE)]
    better = _better_scale(rows[rows["part"] == TRAIN], truth)
    if better:
        x, y, before, after = better
        found = (
            f"boxes that fit the true ones better if x is scaled by {x:.3g} and y by {y:.3g}: mean overlap (IoU) "
            f"{after:.2f} instead of {before:.2f}"
        )
        return [Fault(path, None, found, f"{_PIXELS}, not of resized pictures", _SCALE)]
    return []


def _fractions(path: Path, rows: pd.DataFrame) -> list[Fault]:
    """One fault if most boxes lie within the first pixel of their image."""
    rows = rows[rows[["width_px", "height_px"]].min(axis=1) > _FIRST_PIXEL]
    inside = (rows[CORNERS].abs() <= _FIRST_PIXEL).all(axis=1)
    if not len(rows) or inside.mean() <= 1 / 2:
        return []
    largest = rows.loc[inside, CORNERS].to_numpy().max()
    found = f"{int(inside.sum())} of {len(rows)} boxes within the first pixel (largest corner {largest:g})"
    return [
        Fault(path, None, found, f"{_PIXELS}, not fractions 0..1 of their sides",
              "multiply x_min and x_max by the width and y_min and y_max by the height of each image, in pixels")
    ]  # fmt: skip


def _other_sizes(rows: pd.DataFrame, sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    """Images whose stated size is not that of the picture, in words."""
    images = rows.drop_duplicates("image_id")
    facts = images[["image_id", "width_px", "height_px"]].itertuples(index=False, name=None)
    return [
        f"{name} is {width} x {height} px, not {sizes[name][0]} x {sizes[name][1]}"
        for name, width, height in facts
        if name in sizes and sizes[name] != (width, height)
    ]


def _better_scale(rows: pd.DataFrame, truth: pd.DataFrame) -> tuple[float, float, float, float] | None:
    """Median factors of x and y at which the boxes fit the truth much better, mean IoU before and after."""
    truth = truth[truth["image_id"].isin(rows["image_id"])].reset_index(drop=True)
    if min(len(rows), len(truth)) < _LEAST_BOXES:
        return None
    boxes, true_boxes = rows[CORNERS].to_numpy(float), truth[CORNERS].to_numpy(float)
    numbered = rows[["image_id"]].assign(box=np.arange(len(rows)))
    pairs = truth[["image_id"]].assign(true=truth.index).merge(numbered, on="image_id")

    def fit(factors: np.ndarray) -> float:
        """The mean over the true boxes of the best IoU with a box of the same image, labels aside."""
        scaled = boxes * np.tile(factors, 2)
        overlaps = iou_pairs(true_boxes[pairs["true"]], scaled[pairs["box"]])
        return float(pd.Series(overlaps).groupby(pairs["true"]).max().mean())

    before = fit(np.ones((len(rows), 2)))
    scales = [(fit(factors), *np.median(factors, axis=0).tolist()) for factors in _factors(rows, truth)]
    after, x, y = max(scales, default=(0.0, 1.0, 1.0))
    return (x, y, before, after) if after >= before + _BETTER else None


def _factors(rows: pd.DataFrame, truth: pd.DataFrame) -> Iterator[np.ndarray]:
    """Factors of each box (n, 2), were the pictures made smaller by one factor, or all made one size."""
    sides = rows.drop_duplicates("image_id").set_index("image_id")[["width_px", "height_px"]].astype(float)
    box_sides = rows[["width_px", "height_px"]].to_numpy(float)
    ends = rows[["x_max", "y_max"]].to_numpy(float)
    true_reach = (truth[["x_max", "y_max"]].to_numpy(float) / sides.loc[truth["image_id"]].to_numpy()).max(axis=0)
    reach = (ends / box_sides).max(axis=0)
    other = (reach < _REACH * true_reach) | (reach > 1 / _REACH)
    if other.any() and (reach > 0).all():
        yield np.broadcast_to(np.where(other, true_reach / reach, 1.0), box_sides.shape)
        yield np.where(other, box_sides * true_reach / ends.max(axis=0), 1.0)
