"""Boxes that leave their image as it is read, and fit it turned by its EXIF orientation (or unturned)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit.schemas.csv_text import LINE, Fault
from kit.schemas.image_headers import ImageFacts, lies_on_its_side
from kit.schemas.row_checks import INSIDE, RowCheck

_FITTING = {"exif": "the turned pictures", "ignore": "the pixels as they lie in the files"}


def turned_boxes(
    path: Path, table: pd.DataFrame, pictures: pd.Series, inside: RowCheck = INSIDE
) -> tuple[list[Fault], pd.DataFrame]:
    """One fault for all such boxes, with the value of data.orientation that they fit; and the other rows.

    ``table`` has image_id, corners, and width_px and height_px of the images as they are read; it may have no rows.
    ``pictures`` has each row's ImageFacts, or None. Boxes that pass the check ``inside`` leave no image.
    """
    outside = table[~inside.test(table)]
    facts = pictures[outside.index]
    fits = [
        fact is not None and lies_on_its_side(fact.tag) and x_max <= fact.height_px and y_max <= fact.width_px
        for fact, x_max, y_max in zip(facts, outside["x_max"], outside["y_max"], strict=True)
    ]
    turned = outside[fits]
    if turned.empty:
        return [], table
    row = turned.iloc[0]
    value = _other_value(pictures[turned.index[0]])
    box = f"{row['image_id']}, x_max {row['x_max']:.15g}, y_max {row['y_max']:.15g}"
    size = f"width_px {row['width_px']}, height_px {row['height_px']}"
    more = f" and {len(turned) - 1} rows more" if len(turned) > 1 else ""
    fault = Fault(
        path, int(row[LINE]), f"{box}, {size}{more}",
        f"{INSIDE.expected}; these images have an EXIF orientation, and the boxes fit {_FITTING[value]}",
        f"--set data.orientation={value}, if the boxes were drawn on {_FITTING[value]}",
    )  # fmt: skip
    return [fault], table.drop(index=turned.index)


def turned_sizes(path: Path, table: pd.DataFrame, pictures: pd.Series) -> list[Fault]:
    """One fault for all images whose ``stated`` size is that of the picture read otherwise.

    ``table`` has image_id, and stated (width and height in pixels, or None); ``pictures`` each row's ImageFacts.
    """
    turned = {
        fact.path: (name, size, fact)
        for name, size, fact in zip(table["image_id"], table["stated"], pictures, strict=True)
        if size and lies_on_its_side(fact.tag) and size == (fact.height_px, fact.width_px) != size[::-1]
    }
    if not turned:
        return []
    name, (width, height), fact = next(iter(turned.values()))
    value = _other_value(fact)
    more = f" and {len(turned) - 1} images more" if len(turned) > 1 else ""
    return [
        Fault(path, None, f"{name} of {width} x {height} px{more}",
              f"sizes of images as they are read; these have an EXIF orientation, and fit {_FITTING[value]}",
              f"--set data.orientation={value}, if the boxes are those of {_FITTING[value]}")
    ]  # fmt: skip


def _other_value(image: ImageFacts) -> str:
    """The value of data.orientation by which the image is not read; all images are read by the same one."""
    return "ignore" if lies_on_its_side(image.turn) else "exif"
