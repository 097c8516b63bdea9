"""Weighted boxes fusion against ensemble-boxes, which it equals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.fusion import weighted_boxes_fusion
from kit.boxes.geometry import CORNERS

from .measure import Row, in_turn
from .sizes import Sizes
from .tables import LABELS, SIDE_PX, Scatter, detections, image_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # numba's and numpy's own
    import ensemble_boxes

IOU = 0.55
EQUAL = 1e-5
_AS_FAST = 1.1
SCATTERS: tuple[Scatter, ...] = ("clustered", "uniform", "one class")


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    image_ids = image_names(sizes.fused_images)
    size = f"{sizes.fused_images} images x {sizes.fused_sources} sources x {sizes.fused_boxes} boxes"
    for scatter in SCATTERS:
        table = detections(image_ids, sizes.fused_sources, sizes.fused_boxes, scatter=scatter)
        limited = scatter == "clustered"  # the others are shown: the reference takes seconds, so once
        a, b, apart = _compared(table, max(1, sizes.repeats - 2) if limited else 1)
        equal = f"{'equal' if apart <= EQUAL else 'NOT EQUAL'}: furthest apart {apart:.1g}"
        yield Row("fusion", f"weighted boxes fusion, {scatter}, {size}", "ensemble-boxes", "s", a, b, "times less",
                  limit=20 if limited else None, ceiling=0.3 if limited else None, note=equal)  # fmt: skip
        if limited:
            yield from _voting(table, size, sizes.repeats)


def _voting(table: pd.DataFrame, size: str, repeats: int) -> Iterator[Row]:
    sources = [(run, "plain") for run in table["run"].unique()]

    def fused(method: str) -> Callable[[], pd.DataFrame]:
        return lambda: weighted_boxes_fusion(table, sources, IOU, None, method)

    for method in ("wbf_sum", "wbf_or"):
        a, b = in_turn(fused(method), fused("wbf"), repeats)
        yield Row("fusion", f"{method}, clustered, {size}", "wbf", "s", a, b, "times as much",
                  limit=_AS_FAST)  # fmt: skip


def _compared(table: pd.DataFrame, repeats: int) -> tuple[float, float, float]:
    """Seconds of both and how far apart they are."""
    sources = [(run, "plain") for run in table["run"].unique()]
    arrays = as_arrays(table)

    def ours() -> pd.DataFrame:
        return weighted_boxes_fusion(table, sources, IOU)

    def other() -> Fused:
        return reference(arrays)

    apart = furthest(ours(), other())
    return *in_turn(ours, other, repeats), apart


Arrays = dict[str, tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]]
Fused = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def as_arrays(table: pd.DataFrame) -> Arrays:
    """The same detections as ensemble-boxes wants them: per image and source, boxes in shares of the side."""
    number = {label: index for index, label in enumerate(LABELS)}
    shares = table[CORNERS].to_numpy(np.float64) / SIDE_PX
    scores, labels = table["score"].to_numpy(np.float64), table["label"].map(number).to_numpy()
    found: Arrays = {}
    for (image_id, _), rows_of in table.groupby(["image_id", "run"]).indices.items():
        boxes, score, label = found.setdefault(str(image_id), ([], [], []))
        boxes.append(shares[rows_of])
        score.append(scores[rows_of])
        label.append(labels[rows_of])
    return found


def reference(arrays: Arrays) -> Fused:
    """ensemble-boxes, image by image."""
    return {
        image_id: ensemble_boxes.weighted_boxes_fusion(*parts, iou_thr=IOU, skip_box_thr=0.0)
        for image_id, parts in arrays.items()
    }


def furthest(ours: pd.DataFrame, theirs: Fused) -> float:
    """The largest difference of any score or corner (as a share of the side); inf where rows are missing."""
    parts = [
        pd.DataFrame(boxes, columns=CORNERS).assign(image_id=image_id, score=scores, label=labels.astype(int))
        for image_id, (boxes, scores, labels) in theirs.items()
    ]
    number = {label: index for index, label in enumerate(LABELS)}
    mine = ours.assign(label=ours["label"].map(number))
    mine[CORNERS] = mine[CORNERS] / SIDE_PX
    tables = []
    for table in (mine, pd.concat(parts)):
        keyed = table.assign(rounded=table["score"].round(6), left=table["x_min"].round(5))
        ordered = keyed.sort_values(["image_id", "label", "rounded", "left"])
        tables.append(ordered[["score", *CORNERS, "label"]].to_numpy(np.float64))
    if tables[0].shape != tables[1].shape:
        return float("inf")
    return float(np.abs(tables[0] - tables[1]).max(initial=0))
