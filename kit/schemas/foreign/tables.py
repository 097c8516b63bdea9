"""Tables of detections, CSV or parquet: kit's own columns, or the words that other tools have for them."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_scalar

from kit.core.errors import first_few, reason
from kit.schemas.csv_text import LINE, Cells, Fault, TableError, read_cells
from kit.schemas.foreign.content import KEPT, Foreign, Ids

# The names of a column, the first one that a table has is taken: supervision writes class_name and confidence,
# pandas from YOLOv5 xmin, torchvision's drawing functions say x1. A file name is surer than a tool's image_id.
_NAMES = {
    "image_id": ("file_name", "image_id"),
    "x_min": ("x_min", "xmin", "x1"),
    "y_min": ("y_min", "ymin", "y1"),
    "x_max": ("x_max", "xmax", "x2"),
    "y_max": ("y_max", "ymax", "y2"),
    "score": ("score", "confidence"),
    "label": ("label", "class_name"),
}
OF_IMAGES = {name: _NAMES[name] for name in ("image_id", "label", "score")}  # the columns of image scores
log = logging.getLogger("kit")


def read_table(path: Path, labels: Sequence[str], ids: Ids, do: str) -> Foreign:
    """The rows of a CSV or parquet file; a column that kit does not know is ignored, and the log names it.

    A label may be a number of ``ids``, an image_id an id of its images. Raises TableError if a column is missing,
    or if one is spelled almost like an optional one (Fold for fold).
    """
    cells = read_columns(path, _NAMES, KEPT, do)
    table = cells.table
    names = {str(number): name for number, name in ids.images.items()}
    numbers = {str(number): label for number, label in ids.labels.items() if str(number) not in labels}
    numbered = bool(table["label"].isin(list(numbers)).any())
    table = table.assign(
        image_id=[names.get(cell, cell) for cell in table["image_id"]],
        label=[numbers.get(cell, cell) for cell in table["label"]],
    )
    return Foreign(replace(cells, table=table), ids.labels if numbered else {}, sizes=ids.sizes)


def read_columns(path: Path, needed: Mapping[str, Sequence[str]], optional: Sequence[str], do: str) -> Cells:
    """The cells of these columns of a CSV or parquet file, under kit's names; the log names those that are ignored.

    Args:
        path: The file.
        needed: By kit's name of a column the names that it may have; the first one that the table has is taken.
        optional: Columns that are taken if they are there.
        do: The advice of a TableError.

    Raises:
        TableError: A column is missing, or one is spelled almost like an optional one (Fold for fold).
    """
    cells = read_cells(path, do) if path.suffix.lower() == ".csv" else _parquet_cells(path, do)
    taken = {
        name: next((word for word in words if word in cells.header), None) for name, words in needed.items()
    } | {name: name for name in optional if name in cells.header}
    others = [name for name in cells.header if name not in {*taken.values(), "run"}]
    misspelt = [name for name in others if name.strip().lower() in optional]
    if misspelt or None in taken.values():
        words = [" or ".join(reversed(names)) for names in needed.values()]
        header = f"the columns {', '.join(words)} and, if wanted, {', '.join(optional)}"
        if len(cells.header) == 1:
            header += "; with commas between the cells and points in the numbers"
        if misspelt:
            header += f"; {', '.join(f'{name.strip().lower()}, not {name}' for name in misspelt)}"
        raise TableError(path, [Fault(path, cells.header_line, ",".join(cells.header), header)], do)
    if others:
        shown = first_few((name or "one without a name" for name in others), len(others))
        log.info("%s: columns that are ignored: %s", path.name, shown)
    table = cells.table[[LINE, *taken.values()]].set_axis([LINE, *taken], axis=1)
    return replace(cells, header=tuple(taken), table=table)


def _parquet_cells(path: Path, do: str) -> Cells:
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise TableError(path, [Fault(path, None, reason(error), "a parquet file that can be read")], do) from error
    try:
        table = pd.read_parquet(content)
    except (MemoryError, ImportError):
        raise
    # pyarrow and pandas raise ArrowInvalid, OSError, TypeError and others for a broken file.
    except Exception as error:
        raise TableError(path, [Fault(path, None, reason(error), "a parquet file")], do) from error
    texts = {
        str(name): [
            "" if is_scalar(value) and pd.isna(value) else str(value) for value in table[name].astype(object)
        ]
        for name in table.columns
    }
    rows = pd.DataFrame(texts, index=pd.RangeIndex(len(table)), dtype=object)
    return Cells(path, tuple(texts), None, rows.assign(**{LINE: np.arange(1, len(table) + 1)}), ())
