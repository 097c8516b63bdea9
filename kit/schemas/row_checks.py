"""What each row of a table must fulfil, in the words of the message that it gets where it does not.

A rule that cannot be judged (no such image, no box) holds: one mistake gives one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from kit.boxes.geometry import CORNERS
from kit.schemas.csv_text import LINE, Fault

_OVERHANG_PX = 1.0
_PLAIN = "that is not empty, without blanks around it or invisible characters"


@dataclass(frozen=True)
class RowCheck:
    """What every row must fulfil: the words for it, the columns to show, and the test of a whole table."""

    expected: str
    columns: tuple[str, ...]
    test: Callable[[pd.DataFrame], pd.Series]


def failed_checks(path: Path, table: pd.DataFrame, rules: Sequence[RowCheck]) -> list[Fault]:
    """A fault for every row and rule that it breaks, found by a pandera schema over the whole table."""
    checks = [pa.Check(rule.test, name=str(number), ignore_na=False) for number, rule in enumerate(rules)]
    try:
        pa.DataFrameSchema(checks=checks).validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases[["check", "index"]].drop_duplicates()  # it has one per cell of a row
        return [
            Fault(path, line, _shown(rule.columns, values), rule.expected)
            for number, rule in enumerate(rules)
            for line, values in _rows(table.loc[cases.loc[cases["check"] == str(number), "index"]], rule.columns)
        ]
    return []


def repeated_rows(path: Path, table: pd.DataFrame, columns: Sequence[str], expected: str) -> list[Fault]:
    """A fault for every row that repeats an earlier one in these columns."""
    if not table.duplicated(list(columns)).any():
        return []
    first = table.groupby(list(columns), sort=False)[LINE].transform("min")
    again = table[LINE] != first
    return [
        Fault(path, line, _shown(columns, values), f"{expected} (line {earlier} does)")
        for earlier, (line, values) in zip(first[again], _rows(table[again], columns), strict=True)
    ]


def clip_to_image(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows with corners moved onto the border of their image (width_px, height_px)."""
    return table.assign(
        x_min=table["x_min"].clip(lower=0),
        y_min=table["y_min"].clip(lower=0),
        x_max=np.minimum(table["x_max"], table["width_px"]),
        y_max=np.minimum(table["y_max"], table["height_px"]),
    )


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[int, tuple[object, ...]]]:
    """Each row's line and its cells in these columns."""
    return zip(table[LINE].tolist(), table[list(columns)].itertuples(index=False, name=None), strict=True)


def _shown(columns: Sequence[str], values: Sequence[object]) -> str:
    texts = [f"{value:.15g}" if isinstance(value, float) else str(value) for value in values]
    if len(texts) == 1:
        return texts[0]
    return ", ".join(f"{name} {text}" for name, text in zip(columns, texts, strict=True))


def _each(texts: pd.Series, test: Callable[[str], bool]) -> pd.Series:
    """A test of texts, made once for each different one."""
    verdicts = {text: test(text) for text in texts.unique()}
    return texts.map(verdicts).astype(bool)


def _has_path(rows: pd.DataFrame) -> pd.Series:
    return _each(rows["image_id"], lambda name: "/" in name or "\\" in name or name in (".", ".."))


def _is_plain(texts: pd.Series) -> pd.Series:
    return _each(texts, lambda text: text != "" and text == text.strip() and text.isprintable())


def has_area(rows: pd.DataFrame) -> pd.Series:
    """Whether the corners make a box with an area, also in the float32 of the detectors."""
    with np.errstate(over="ignore"):
        x_min, y_min, x_max, y_max = (rows[name].astype(np.float32) for name in CORNERS)
    return (x_max > x_min) & (y_max > y_min)


def _inside(rows: pd.DataFrame, overhang_px: float = 0.0) -> pd.Series:
    """Whether the corners are inside; True where that cannot be said (no such image, or no box)."""
    over = overhang_px
    near = (rows["x_min"] > -over) & (rows["y_min"] > -over)
    near &= (rows["x_max"] < rows["width_px"] + over) & (rows["y_max"] < rows["height_px"] + over)
    exact = (rows["x_min"] >= 0) & (rows["y_min"] >= 0)
    exact &= (rows["x_max"] <= rows["width_px"]) & (rows["y_max"] <= rows["height_px"])
    fits = near & has_area(clip_to_image(rows)) if overhang_px else exact
    return fits | (rows["width_px"] == 0) | ~has_area(rows)


IMAGE_CHECKS = (
    RowCheck(f"an image_id {_PLAIN}", ("image_id",), lambda rows: _is_plain(rows["image_id"])),
    RowCheck("a file name without a path", ("image_id",), lambda rows: ~_has_path(rows)),
    RowCheck(
        "an image that is there",
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
