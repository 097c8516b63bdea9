"""The audit's checks of boxes: their unit, those of no finding, those that repeat others or are improbable."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import pandas as pd

from kit.core.errors import first_few
from kit.data.finding import FAULT, NOTE, WARNING, Finding, counted
from kit.data.repeated_boxes import SAME_FINDING_IOU, finding_numbers
from kit.data.statistics import box_fractions
from kit.schemas.image_headers import ImageFacts

UNITS, REPEATED, BOXES, NO_FINDING = "box-units", "repeated-boxes", "improbable-boxes", "no-finding-boxes"
_FRACTION_SHARE = 0.1  # of the boxes: fewer inside the first pixel are single mistakes
_REACH = 0.6  # of the image: boxes on radiographs reach over .8 of it in one direction at least
_LEAST_BOXES = 20  # fewer boxes have no distribution to speak of
# False alarms among 814 boxes, mean of 40 draws with NIH's means and standard deviations: sides normal .02, beta
# .05, the phantoms' .08; lognormal sides without any relation 2.7; tails of Student's t with 5 degrees 8.9.
_IMPROBABLE = 5.5
_TAIL = 0.05  # the scale is read between this quantile and its opposite: up to 5% of the boxes may be wrong
_LEAST_SPREAD = {"size": 0.2, "shape": 0.2, "across": 0.02, "down": 0.02}
_EDGE = 0.002


def box_units(annotations: pd.DataFrame, images: Mapping[str, ImageFacts]) -> Finding | None:
    """Boxes in another unit than the pixels of their images: fractions, or the pixels of smaller pictures.

    A box inside the first pixel of its image is a fraction, or a stand-in for "no box": a fault if they are more
    than a tenth of all boxes or all boxes of a class, else a warning. If 20 boxes or more all end before .6 of
    their images, across and down, they were probably drawn on smaller pictures: a warning with the farthest end.
    """
    if annotations.empty:
        return None
    boxes = annotations.reset_index(drop=True)
    facts = [images[image_id] for image_id in boxes["image_id"]]
    width_px = np.array([fact.width_px for fact in facts], dtype=np.float64)
    height_px = np.array([fact.height_px for fact in facts], dtype=np.float64)
    tiny = (boxes["x_max"] <= 1) & (boxes["y_max"] <= 1) & (width_px > 1) & (height_px > 1)
    if tiny.any():
        whole = tiny.groupby(boxes["label"]).all()
        of_class = f"; all boxes of {', '.join(whole.index[whole])}" if whole.any() else ""
        fault = bool(whole.any()) or tiny.mean() > _FRACTION_SHARE
        return Finding(
            FAULT if fault else WARNING, UNITS,
            f"{counted(int(tiny.sum()), 'box', 'boxes')} of {len(boxes)} within the first pixel of the image"
            f"{of_class}: fractions instead of pixels?",
            "train.csv needs corners in pixels: multiply fractions by the image's width (x) and height (y); a row "
            "without a finding has the label No finding",
            boxes[tiny].reset_index(drop=True),
        )  # fmt: skip
    across, down = boxes["x_max"] / width_px, boxes["y_max"] / height_px
    if len(boxes) < _LEAST_BOXES or max(across.max(), down.max()) >= _REACH:
        return None
    farthest = [int(across.argmax()), int(down.argmax())]
    rows = boxes.assign(width_px=width_px, height_px=height_px).iloc[sorted(set(farthest))].reset_index(drop=True)
    return Finding(
        WARNING, UNITS,
        f"all {len(boxes)} boxes end before {across.max():.0%} of the width and {down.max():.0%} of the height of "
        "their images: drawn on smaller pictures?",
        "if the boxes are of resized pictures, multiply their corners by the ratio of the sizes, or put those "
        "pictures into train/", rows,
    )  # fmt: skip


def no_finding_boxes(rows: pd.DataFrame) -> Finding | None:
    """Rows of train.csv with a box and a label such as ``No finding``: the label is then a class; a row each."""
    if rows.empty:
        return None
    labels = first_few(repr(label) for label in rows["label"].unique())
    return Finding(
        WARNING, NO_FINDING,
        f"{counted(len(rows), 'row')} of train.csv with a box and the label {labels} (lines "
        f"{first_few(rows['line'])})",
        "this label is a class, in training and in the scores: if it says that there is no finding, leave out the "
        "rows, or their corners; an image without a finding needs no row", rows,
    )  # fmt: skip


def repeated_boxes(annotations: pd.DataFrame, fused: bool) -> Finding | None:
    """Boxes of one class that overlap in an image (IoU above .5): given by several readers, for one finding.

    A warning with a row per such box, in findings; a note if ``fused``: data.repeated_boxes=fuse averages them.
    """
    numbers = finding_numbers(annotations)
    boxes = annotations.reset_index(drop=True).assign(finding=numbers)
    rows = boxes[boxes["finding"].duplicated(keep=False)].sort_values("finding", kind="stable")
    if rows.empty:
        return None
    findings = rows["finding"].nunique()
    rows["finding"] = pd.factorize(rows["finding"])[0] + 1
    do = (
        "data.repeated_boxes=fuse trains on their mean" if fused else
        "if several readers drew them, add --set data.repeated_boxes=fuse: their mean becomes one box; as it is, "
        "each counts as a finding of its own, in training and in the scores"
    )  # fmt: skip
    return Finding(
        NOTE if fused else WARNING, REPEATED,
        f"{counted(len(rows), 'box', 'boxes')} of {len(annotations)} repeat each other: "
        f"{counted(findings, 'finding')} with two or more boxes of a class over each other (IoU above "
        f"{SAME_FINDING_IOU:g})", do, rows[["finding", *annotations.columns]].reset_index(drop=True),
    )  # fmt: skip


def improbable_boxes(annotations: pd.DataFrame, images: Mapping[str, ImageFacts]) -> Finding | None:
    """Boxes whose size and position are far from those of the other boxes of their class.

    Four values per box, almost independent of each other: sum (size) and difference (shape) of the logits of
    width and height as shares of the image, and the centre's position across and down. The distance of a value
    is that from the median of its class, in units of the robust scale of its class; a box is improbable if the
    root of the sum of its squared distances exceeds 5.5. A class with fewer than 20 boxes is not judged.
    """
    shares = box_fractions(annotations, images)
    odds = shares[["width", "height"]].clip(_EDGE, 1 - _EDGE)
    logits = np.log(odds / (1 - odds))
    values = pd.DataFrame(
        {
            "size": logits["width"] + logits["height"],
            "shape": logits["width"] - logits["height"],
            "across": shares["centre_x"],
            "down": shares["centre_y"],
        }
    )
    deviations = pd.DataFrame(0.0, index=values.index, columns=values.columns)
    for _, rows_of_class in shares.groupby("label").groups.items():
        if len(rows_of_class) >= _LEAST_BOXES:
            deviations.loc[rows_of_class] = _deviations(values.loc[rows_of_class])
    distance = (deviations**2).sum(axis=1) ** 0.5
    chosen = distance[distance > _IMPROBABLE].sort_values(ascending=False, kind="stable").index
    if chosen.empty:
        return None
    rows = annotations.reset_index(drop=True).loc[chosen]
    rows = rows.assign(distance=distance.round(2), odd=deviations.abs().idxmax(axis=1)).reset_index(drop=True)
    return Finding(
        WARNING, BOXES, f"{counted(len(rows), 'box', 'boxes')} of {len(annotations)} improbable for the class",
        "inspect the picture sheet: a typing error, another convention (x, y, width, height), a wrong label, or "
        "just a rare patient", rows,
    )  # fmt: skip


def _deviations(values: pd.DataFrame) -> pd.DataFrame:
    """The distance of each value from the median in robust standard deviations.

    The scale is the larger of two, from the middle half and from the middle nine tenths of the values: two lungs
    make two clusters of centres, and the middle half may lie in only one of them.
    """
    scales = [
        (values.quantile(1 - tail) - values.quantile(tail)) / (2 * NormalDist().inv_cdf(1 - tail))
        for tail in (0.25, _TAIL)
    ]
    return (values - values.median()) / pd.DataFrame([_LEAST_SPREAD, *scales]).max()
