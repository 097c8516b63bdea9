"""What each row of a table must fulfil, in the words of the message that it gets where it does not.

A rule that cannot be judged (no such image, no box) holds: one mistake gives one message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from kit.boxes import CORNERS
from kit.cells import LINE, Fault

_OVERHANG_PX = 1.0


@dataclass(frozen=True)
class Rule:
    """What every row must fulfil: the words for it, the columns to show, and the test of a whole table."""

    expected: str
    columns: tuple[str, ...]
    test: Callable[[pd.DataFrame], pd.Series]


def broken_rules(path: Path, table: pd.DataFrame, rules: Sequence[Rule]) -> list[Fault]:
    """A fault for every row and rule that it breaks, found by a pandera schema over the whole table."""
    checks = [pa.Check(rule.test, name=str(number), ignore_na=False) for number, rule in enumerate(rules)]
    try:
        pa.DataFrameSchema(checks=checks).validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases[["check", "index"]].drop_duplicates()
        faults = []
        for number, index in cases.itertuples(index=False, name=None):
            rule, row = rules[int(number)], table.loc[index]
            value = ", ".join(_as_text(row[name]) for name in rule.columns)
            faults.append(Fault(path, int(row[LINE]), value, rule.expected))
        return faults
    return []


def repeated(path: Path, table: pd.DataFrame, columns: Sequence[str], expected: str) -> list[Fault]:
    """A fault for every row that repeats an earlier one in these columns."""
    rows = table[list(columns)]
    first = table[LINE].groupby([rows[name] for name in columns], dropna=False).transform("min")
    return [
        Fault(path, int(line), ", ".join(map(_as_text, values)), f"{expected} (line {earlier} does)")
        for line, earlier, values in zip(table[LINE], first, rows.itertuples(index=False, name=None), strict=True)
        if line != earlier
    ]


def clipped(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows with corners moved onto the border of their image (width_px, height_px)."""
    return table.assign(
        x_min=table["x_min"].clip(lower=0),
        y_min=table["y_min"].clip(lower=0),
        x_max=np.minimum(table["x_max"], table["width_px"]),
        y_max=np.minimum(table["y_max"], table["height_px"]),
    )


def _as_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _has_path(rows: pd.DataFrame) -> pd.Series:
    names = rows["image_id"]
    return names.str.contains(r"[/\\]", regex=True) | names.isin([".", ".."])


def _is_plain(names: pd.Series) -> pd.Series:
    return (names.str.strip() == names) & (names != "") & ~names.str.contains(r"[\x00-\x1f\x7f]", regex=True)


def ordered(rows: pd.DataFrame) -> pd.Series:
    """Whether the corners make a box with an area."""
    return (rows["x_max"] > rows["x_min"]) & (rows["y_max"] > rows["y_min"])


def inside(rows: pd.DataFrame, overhang_px: float = 0.0) -> pd.Series:
    """Whether the corners are inside; True where that cannot be said (no such image, or no box)."""
    over = overhang_px
    near = (rows["x_min"] > -over) & (rows["y_min"] > -over)
    near &= (rows["x_max"] < rows["width_px"] + over) & (rows["y_max"] < rows["height_px"] + over)
    exact = (rows["x_min"] >= 0) & (rows["y_min"] >= 0)
    exact &= (rows["x_max"] <= rows["width_px"]) & (rows["y_max"] <= rows["height_px"])
    fits = near & ordered(clipped(rows)) if overhang_px else exact
    return fits | (rows["width_px"] == 0) | ~ordered(rows)


IMAGE_RULES = (
    Rule("an image_id without blanks around it", ("image_id",), lambda rows: _is_plain(rows["image_id"])),
    Rule("a file name without a path", ("image_id",), lambda rows: ~_has_path(rows)),
    Rule(
        "an image that is there",
        ("image_id",),
        lambda rows: (rows["image_fault"] != "missing") | _has_path(rows) | ~_is_plain(rows["image_id"]),
    ),
    Rule(
        "an image that can be read",
        ("image_id", "image_fault"),
        lambda rows: rows["image_fault"].isin(["", "missing"]),
    ),
)
BOX_RULES = (
    Rule("x_min < x_max and y_min < y_max", tuple(CORNERS), ordered),
    Rule(
        "corners inside the image, or less than a pixel over",
        (*CORNERS, "width_px", "height_px"),
        lambda rows: inside(rows, _OVERHANG_PX),
    ),
)
LABEL_RULES = (Rule("a label without blanks around it", ("label",), lambda rows: _is_plain(rows["label"])),)
