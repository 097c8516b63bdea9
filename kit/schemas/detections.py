"""Raw detections: the columns of the table, and the check of their values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pandera.pandas as pa

from kit.boxes.geometry import CORNERS
from kit.core.errors import KitError
from kit.schemas.row_checks import has_area

DETECTION_COLUMNS = ("run", "fold", "view", "image_id", *CORNERS, "score", "label")
TEXT_COLUMNS = ("run", "view", "image_id", "label")


def check_detections(table: pd.DataFrame, source: str, do: str = "make it anew") -> pd.DataFrame:
    """The table with its columns in the expected types; zero rows are fine.

    Raises KitError that names ``source``, with the advice ``do``.
    """

    def refusal(found: str) -> KitError:
        return KitError(f"{source} to be a table of detections ({', '.join(DETECTION_COLUMNS)})", found, do)

    missing = [name for name in DETECTION_COLUMNS if name not in table]
    if missing:
        raise refusal(f"no column {', '.join(missing)}")
    twice = [name for name in DETECTION_COLUMNS if list(table.columns).count(name) > 1]
    if twice:
        raise refusal(f"two columns {', '.join(twice)}")
    texts = [name for name in (*CORNERS, "score") if len(table) and table[name].dtype.kind not in "fiu"]
    if texts:
        raise refusal(f"{texts[0]} {str(table[texts[0]].iloc[0])!r}, no column of numbers")
    # pandas 3 reads texts from parquet in a type of its own, and `read_detections` as categories.
    kinds = (pd.StringDtype, pd.CategoricalDtype)
    strings = [name for name, kind in table.dtypes.items() if isinstance(kind, kinds)]
    try:
        checked = _DETECTIONS.validate(table.astype(dict.fromkeys(strings, object)), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        first = cases.iloc[0]
        row = "" if pd.isna(first["index"]) else f"row {first['index']}, "
        fault = f"{first['column']} {str(first['failure_case'])!r} ({row}{first['check']})"
        raise refusal(f"{len(cases)} fault(s), the first: {fault}") from error
    inverted = checked.index[~has_area(checked)]
    if len(inverted):
        corners = checked.loc[inverted[:1], CORNERS].iloc[0].tolist()
        raise refusal(f"{len(inverted)} box(es) without an area, the first: {corners} (row {inverted[0]})")
    return checked


def _are_texts(values: pd.Series) -> pd.Series:
    """Whether each value is a text that is not empty; a column repeats few of them."""
    return values.isin([value for value in values.unique() if isinstance(value, str) and value])


_TEXT = pa.Column(object, pa.Check(_are_texts, error="a text, not empty"))
_NUMBER = pa.Column(float, pa.Check(np.isfinite), coerce=True)
_DETECTIONS = pa.DataFrameSchema(
    {
        **dict.fromkeys(TEXT_COLUMNS, _TEXT),
        "fold": pa.Column(int, pa.Check.ge(0)),
        **dict.fromkeys(CORNERS, _NUMBER),
        "score": pa.Column(float, pa.Check.in_range(0, 1), coerce=True),
    }
)


def with_categories(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows, each text column as codes of its sorted texts: looked up by text, not row by row."""
    return table.astype(dict.fromkeys(TEXT_COLUMNS, "category"))


def detection_table(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of raw detections as one, in the column types of a stored one; without tables it has no rows."""
    filled = [table for table in tables if len(table)]
    table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(DETECTION_COLUMNS))
    kinds = dict.fromkeys(TEXT_COLUMNS, "object") | {"fold": "int64"}
    return table.astype(kinds | dict.fromkeys((*CORNERS, "score"), "float32"))
