"""Boxes in fractions 0..1 of their image's sides, where corners in pixels belong: they end in the first pixel."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.core.errors import first_few
from kit.schemas.csv_text import LINE, Fault

MULTIPLY = "multiply x_min and x_max by the width and y_min and y_max by the height of each image, in pixels"
_SHARE = 0.1  # of the boxes: fewer are single mistakes, or tiny boxes of a detector
_LEAST = 2  # a single box may be a tiny one of a detector
log = logging.getLogger("kit")


def fraction_boxes(rows: pd.DataFrame, reach_px: float = 1.0) -> tuple[pd.DataFrame, bool]:
    """The rows whose box ends within the first pixel of its image, and whether boxes are fractions.

    They are if all boxes end there, or two boxes and a tenth of all at least are smaller than that pixel: the box
    0,0,1,1 alone is one that people write for "nothing there". Zero rows are no fractions.

    Args:
        rows: Corners, and width_px and height_px; images of a single pixel are not judged.
        reach_px: Where the first pixel ends; more than 1 if boxes may be over the border.
    """
    judged = rows[rows[["width_px", "height_px"]].min(axis=1) > reach_px]
    inside = judged[(judged[CORNERS].abs() <= reach_px).all(axis=1)]
    is_smaller = (inside["x_max"] - inside["x_min"] < 1) | (inside["y_max"] - inside["y_min"] < 1)
    smaller = int(is_smaller.sum())
    every = len(judged) > 0 and len(inside) == len(judged)
    return inside, every or (smaller >= _LEAST and smaller >= _SHARE * len(judged))


def boxes_in_fractions(path: Path, table: pd.DataFrame) -> list[Fault]:
    """One fault if boxes of a submission are fractions; the log names single boxes that may be."""
    inside, are_fractions = fraction_boxes(table)
    if not are_fractions:
        few = inside[(inside["x_max"] < 1) | (inside["y_max"] < 1)]
        if len(few):
            lines = first_few(few[LINE])
            log.warning(
                "%s: boxes of less than a pixel, as fractions of the sides are, in lines %s", path.name, lines
            )
        return []
    count = f"all {len(inside)}" if len(inside) == len(table) else f"{len(inside)} of {len(table)}"
    return [
        Fault(path, int(inside[LINE].iloc[0]), f"{count} boxes within the first pixel of their images",
              "corners in pixels, not fractions 0..1 of the sides", MULTIPLY)
    ]  # fmt: skip
