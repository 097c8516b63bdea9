"""Pure box geometry in numpy: xyxy corners, absolute pixels, shape (n, 4); n may be 0.

Overlaps are computed in float64 for every dtype: in float32 an IoU of exactly one half can fall below .5.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Real

CORNERS = ["x_min", "y_min", "x_max", "y_max"]
Boxes = Float[np.ndarray, "n 4"]
Sizes = Mapping[str, tuple[int, int]]  # image_id -> (width_px, height_px)
Side = float | Real[np.ndarray, " n"]


def image_sides(image_ids: pd.Series, sizes: Sizes) -> Float64[np.ndarray, "n 2"]:
    """Width and height in pixels of each row's image. Raises KeyError for an image without sizes."""
    image, images = pd.factorize(image_ids)
    return np.array([sizes[name] for name in images], dtype=np.float64).reshape(-1, 2)[image]


def area(boxes: Float[np.ndarray, "*n 4"]) -> Float64[np.ndarray, "*n"]:
    """Areas in square pixels; 0 for a box whose corners are inverted or equal."""
    left, top, right, bottom = (boxes[..., corner].astype(np.float64) for corner in range(4))
    return np.maximum(right - left, 0) * np.maximum(bottom - top, 0)


def iou_matrix(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of every box of ``a`` with every box of ``b``, in 0..1.

    A box without area overlaps nothing (IoU 0, also with itself). Zero boxes give an empty matrix.
    """
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    return _iou(intersection(first, second), area(a)[:, None], area(b)[None])


def iou_pairs(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "n 4"]) -> Float64[np.ndarray, " n"]:
    """Intersection over union of each box of ``a`` with the box of ``b`` in the same row, in 0..1.

    A box without area overlaps nothing.
    """
    return _iou(intersection(a.astype(np.float64), b.astype(np.float64)), area(a), area(b))


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas in square pixels that boxes of ``a`` and ``b`` share; their leading axes are broadcast.

    It can be positive for two boxes with inverted corners.
    """
    # A coordinate at a time, else numpy's innermost loop would have a length of two.
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def clip(boxes: Boxes, width_px: Side, height_px: Side) -> Boxes:
    """Move corners outside the image onto its border; a box wholly outside loses its area.

    The sides, in pixels, are those of one image, or of one image per box (shape (n,)). The dtype is kept.
    """
    limits = np.stack(np.broadcast_arrays(width_px, height_px, width_px, height_px), axis=-1)
    return np.minimum(np.maximum(boxes, 0), limits).astype(boxes.dtype)


def flip_horizontally(boxes: Boxes, width_px: float) -> Boxes:
    """Mirror boxes at the vertical middle line of an image ``width_px`` wide. The dtype is kept."""
    flipped = boxes.astype(np.float64)
    flipped[:, [0, 2]] = width_px - flipped[:, [2, 0]]
    return flipped.astype(boxes.dtype)


def scale(boxes: Boxes, factor_x: float, factor_y: float) -> Boxes:
    """Scale boxes as an image that is resized by these factors. The dtype is kept."""
    return (boxes * np.array([factor_x, factor_y, factor_x, factor_y], dtype=np.float64)).astype(boxes.dtype)


def _iou(shared: np.ndarray, area_a: np.ndarray, area_b: np.ndarray) -> np.ndarray:
    union = area_a + area_b - shared
    # The intersection of an inverted box can be positive by arithmetic: a box without area overlaps nothing.
    both_have_area = (area_a > 0) & (area_b > 0)
    return np.divide(shared, union, out=np.zeros_like(union), where=both_have_area)
