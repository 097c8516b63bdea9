"""Boxes that leave their image as it is read, and fit it turned by its EXIF orientation (or unturned)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from kit.schemas.csv_text import LINE, Fault
from kit.schemas.image_headers import ImageFacts, lies_on_its_side
from kit.schemas.row_checks import INSIDE

_FITTING = {"exif": "the turned pictures", "ignore": "the pixels as they lie in the files"}


def turned_boxes(
    path: Path, table: pd.DataFrame, images: Mapping[str, ImageFacts]
) -> tuple[list[Fault], pd.DataFrame]:
    """One fault for all such boxes, with the value of data.orientation that they fit; and the other rows.

    ``table`` has image_id, corners, and width_px and height_px of the images as they are read; it may have no rows.
    """
    outside = table[~INSIDE.test(table)]
    facts = outside["image_id"].map(images.get)
    fits = [
        fact is not None and lies_on_its_side(fact.tag) and x_max <= fact.height_px and y_max <= fact.width_px
        for fact, x_max, y_max in zip(facts, outside["x_max"], outside["y_max"], strict=True)
    ]
    turned = outside[fits]
    if turned.empty:
        return [], table
    # All images are read by the same knob.
    value = "ignore" if lies_on_its_side(images[turned["image_id"].iloc[0]].turn) else "exif"
    row = turned.iloc[0]
    box = f"{row['image_id']}, x_max {row['x_max']:.15g}, y_max {row['y_max']:.15g}"
    size = f"width_px {row['width_px']}, height_px {row['height_px']}"
    more = f" and {len(turned) - 1} rows more" if len(turned) > 1 else ""
    fault = Fault(
        path, int(row[LINE]), f"{box}, {size}{more}",
        f"{INSIDE.expected}; these images have an EXIF orientation, and the boxes fit {_FITTING[value]}",
        f"--set data.orientation={value}, if the boxes were drawn on {_FITTING[value]}",
    )  # fmt: skip
    return [fault], table.drop(index=turned.index)
