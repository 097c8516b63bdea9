"""Cells that are numbers: one fault a row, however many of its cells are bad."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.schemas.csv_text import LINE, Cells
from kit.schemas.number_cells import parse_numbers, without_corners

NAMES = ("fold", "x_min", "y_min")


def parsed(rows):
    table = pd.DataFrame(rows, columns=["image_id", *NAMES], dtype=object).assign(**{LINE: range(2, 2 + len(rows))})
    cells = Cells(Path("a.csv"), ("image_id", *NAMES), 1, table, ())
    return parse_numbers(cells, table, ("image_id",), NAMES[1:], NAMES[:1])


def test_no_rows_are_no_faults():
    table, faults = parsed([])
    assert (len(table), faults) == (0, [])
    assert table["fold"].dtype == np.int64


def test_a_row_with_several_bad_cells_is_one_fault_that_names_them():
    table, faults = parsed(
        [("a", "0", "1.5", "2"), ("b", "1.0", "NA", "x"), ("c", "1", "2", ""), ("d", "1", "", "-")]
    )
    assert table.to_numpy().tolist() == [[2, "a", 1.5, 2.0, 0]]
    assert [(fault.line, fault.value, fault.expected) for fault in faults] == [
        (3, "x_min NA, y_min x, fold 1.0",
         "x_min, y_min to be finite decimal numbers and fold to be a whole number (at most 15 digits)"),
        (4, "", "y_min to be a finite decimal number"),
        (5, "x_min , y_min -", "x_min, y_min to be finite decimal numbers"),
    ]  # fmt: skip


@given(st.lists(st.tuples(*[st.sampled_from(["1", "2.5", "", "NA", "1e999", "0x1", "-3"])] * 3), max_size=6))
def test_every_row_is_parsed_or_has_one_fault(rows):
    table, faults = parsed([("a", *row) for row in rows])
    assert sorted([*table[LINE], *(fault.line for fault in faults)]) == list(range(2, 2 + len(rows)))


@pytest.mark.parametrize(("count", "more"), [(0, None), (1, ""), (3, " and 2 rows more")])
def test_rows_without_corners_are_one_fault(count, more):
    rows = pd.DataFrame({"image_id": ["a.png"] * count, "label": "Mass", LINE: range(7, 7 + count)})
    found = [(fault.line, fault.value, fault.do) for fault in without_corners(Path("a.csv"), rows, "so")]
    assert found == ([(7, f"a.png, label Mass, no corners{more}", "so")] if count else [])
