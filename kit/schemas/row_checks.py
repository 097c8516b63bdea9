"""Checks of the rows of a table, each with the words of its message.

A check that needs a missing image or a valid box passes without it, so that one mistake gives one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS, clip
from kit.schemas.csv_text import LINE, Fault
from kit.schemas.image_headers import ImageFacts

_OVERHANG_PX = 1.0
_PLAIN = "that is not empty, without blanks around it or invisible characters"


@dataclass(frozen=True)
class RowCheck:
    """A check of every row: what it expects, the columns to show, and the test of a whole table (True: passed)."""

    expected: str
    columns: tuple[str, ...]
    test: Callable[[pd.DataFrame], pd.Series]


def failed_checks(path: Path, table: pd.DataFrame, checks: Sequence[RowCheck]) -> list[Fault]:
    """A fault for each row and each check that it fails, check by check."""
    return [
        Fault(path, line, _cell_text(check.columns, values), check.expected)
        for check in checks
        if not (passed := check.test(table).to_numpy(np.bool_)).all()
        for line, values in _rows(table[~passed], check.columns)
    ]


def repeated_rows(
    path: Path, table: pd.DataFrame, columns: Sequence[str], expected: str, do: str = ""
) -> list[Fault]:
    """A fault for each row that repeats an earlier row in these columns, with its advice ``do``."""
    if not table.duplicated(list(columns)).any():
        return []
    first = table.groupby(list(columns), sort=False)[LINE].transform("min")
    again = table[LINE] != first
    return [
        Fault(path, line, _cell_text(columns, values), f"{expected} (line {earlier} does)", do)
        for earlier, (line, values) in zip(first[again], _rows(table[again], columns), strict=True)
    ]


def clip_to_image(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with corners outside their image (width_px, height_px) moved onto its border."""
    return table.assign(
        x_min=table["x_min"].clip(lower=0),
        y_min=table["y_min"].clip(lower=0),
        x_max=np.minimum(table["x_max"], table["width_px"]),
        y_max=np.minimum(table["y_max"], table["height_px"]),
    )


def with_image_facts(table: pd.DataFrame, images: Mapping[str, ImageFacts]) -> pd.DataFrame:
    """The rows with their image's width_px, height_px and image_fault; ``missing`` if there is no such image."""
    facts = table["image_id"].map(images.get)
    return table.assign(
        width_px=[fact.width_px if fact else 0 for fact in facts],
        height_px=[fact.height_px if fact else 0 for fact in facts],
        image_fault=[("missing" if fact is None else fact.fault) for fact in facts],
    )


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[int, tuple[object, ...]]]:
    """Each row's line number and its cells in these columns."""
    return zip(table[LINE].tolist(), table[list(columns)].itertuples(index=False, name=None), strict=True)


def _cell_text(columns: Sequence[str], values: Sequence[object]) -> str:
    texts = [f"{value:.15g}" if isinstance(value, float) else str(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return ", ".join(f"{name} {text}" for name, text in zip(columns, texts, strict=True))


def _test_texts(texts: pd.Series, test: Callable[[str], bool]) -> pd.Series:
    """A test of every text; equal texts are tested once."""
    results = {text: test(text) for text in texts.unique()}
    return texts.map(results).astype(bool)


def _has_path(rows: pd.DataFrame) -> pd.Series:
    return _test_texts(rows["image_id"], lambda name: "/" in name or "\\" in name or name in (".", ".."))


def _is_plain(texts: pd.Series) -> pd.Series:
    return _test_texts(texts, lambda text: text != "" and text == text.strip() and text.isprintable())


def has_area(rows: pd.DataFrame) -> pd.Series:
    """Whether the box has an area, also in the float32 of the detectors."""
    return pd.Series(_is_area(*rows[CORNERS].to_numpy(np.float64).T), rows.index)


def _is_area(*corners: np.ndarray) -> np.ndarray:
    """For each box whether it has an area; the corners one after the other, a value a box in each."""
    with np.errstate(over="ignore"):
        x_min, y_min, x_max, y_max = (corner.astype(np.float32) for corner in corners)
    return (x_max > x_min) & (y_max > y_min)


def _inside(rows: pd.DataFrame, overhang_px: float = 0.0) -> pd.Series:
    """Whether the corners are inside the image, or less than ``overhang_px`` outside.

    True if there is no such image or the box has no area.
    """
    boxes = rows[CORNERS].to_numpy(np.float64)
    width, height = rows[["width_px", "height_px"]].to_numpy(np.float64).T
    x_min, y_min, x_max, y_max = boxes.T
    if overhang_px:
        inside = (x_min > -overhang_px) & (y_min > -overhang_px)
        inside &= (x_max < width + overhang_px) & (y_max < height + overhang_px)
        inside &= _is_area(*clip(boxes, width, height).T)
    else:
        inside = (x_min >= 0) & (y_min >= 0) & (x_max <= width) & (y_max <= height)
    return pd.Series(inside | (width == 0) | ~_is_area(*boxes.T), rows.index)


IMAGE_THERE = "an image that is there"
IMAGE_CHECKS = (
    RowCheck(f"an image_id {_PLAIN}", ("image_id",), lambda rows: _is_plain(rows["image_id"])),
    RowCheck("a file name without a path", ("image_id",), lambda rows: ~_has_path(rows)),
    RowCheck(
        IMAGE_THERE,
        ("image_id",),
        lambda rows: (rows["image_fault"] != "missing") | _has_path(rows) | ~_is_plain(rows["image_id"]),
    ),
    RowCheck(
        "an image that can be read",
        ("image_id", "image_fault"),
        lambda rows: rows["image_fault"].isin(["", "missing"]),
    ),
)
AREA = RowCheck("x_min < x_max and y_min < y_max", tuple(CORNERS), has_area)
NIH_AREA = RowCheck("a width and a height above 0", ("x_min", "y_min", "width", "height"), has_area)
INSIDE = RowCheck(
    "corners inside the image, or less than a pixel over",
    (*CORNERS, "width_px", "height_px"),
    lambda rows: _inside(rows, _OVERHANG_PX),
)
EXACTLY_INSIDE = RowCheck("corners inside the image", (*CORNERS, "width_px", "height_px"), _inside)
LABEL = RowCheck(f"a label {_PLAIN}", ("label",), lambda rows: _is_plain(rows["label"]))
PLAIN_VIEW = RowCheck(f"a view {_PLAIN}", ("view",), lambda rows: _is_plain(rows["view"]))
