"""The cells of a table that are numbers: parsed row by row, with one fault for a row, however many are bad."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.schemas.csv_text import LINE, Cells, Fault, to_numbers

_ONE = {True: "a whole number (at most 15 digits)", False: "a finite decimal number"}
_SEVERAL = {True: "whole numbers (at most 15 digits)", False: "finite decimal numbers"}


def parse_numbers(
    cells: Cells,
    raw: pd.DataFrame,
    texts: Sequence[str],
    floats: Sequence[str] = (),
    integers: Sequence[str] = (),
) -> tuple[pd.DataFrame, list[Fault]]:
    """Parse the number columns of ``raw``; a row with a bad cell is left out.

    Args:
        cells: the file, for its name and its faults.
        raw: the columns to use, under kit's names.
        texts: the columns that stay text.
        floats: the columns of decimal numbers.
        integers: the columns of whole numbers.

    Returns:
        The parsed rows, and the faults of the file and of its cells: one a row.
    """
    values = {name: to_numbers(raw[name], name in integers) for name in (*floats, *integers)}
    rows = raw[[LINE, *texts]].assign(**values)
    bad = rows[list(values)].isna()
    faults = list(cells.faults)
    chosen = bad.any(axis=1)
    texts_of_rows, flags = raw.loc[chosen, list(values)].to_numpy().tolist(), bad[chosen].to_numpy().tolist()
    for line, words, is_bad in zip(raw.loc[chosen, LINE].tolist(), texts_of_rows, flags, strict=True):
        found = {name: word for name, word, wrong in zip(values, words, is_bad, strict=True) if wrong}
        text = ", ".join(map(" ".join, found.items())) if len(found) > 1 else next(iter(found.values()))
        faults.append(Fault(cells.path, line, text, _expected(list(found), integers)))
    return rows.dropna(subset=list(values)).astype(dict.fromkeys(integers, np.int64)), faults


def without_corners(path: Path, rows: pd.DataFrame, do: str) -> list[Fault]:
    """One fault, with the advice ``do``, for all rows (image_id, label, line) that have no corners."""
    if rows.empty:
        return []
    image_id, label = rows[["image_id", "label"]].iloc[0]
    more = f" and {len(rows) - 1} rows more" if len(rows) > 1 else ""
    found = f"{image_id}, label {label}, no corners{more}"
    return [Fault(path, int(rows[LINE].iloc[0]), found, "four corners", do)]


def _expected(names: Sequence[str], integers: Sequence[str]) -> str:
    kinds = [[name for name in names if (name in integers) == whole] for whole in (False, True)]
    return " and ".join(
        f"{', '.join(kind)} to be {_ONE[whole] if len(kind) == 1 else _SEVERAL[whole]}"
        for whole, kind in zip((False, True), kinds, strict=True)
        if kind
    )
