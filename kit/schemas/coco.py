"""COCO results as text cells: the JSON list that detectors write, or a data set whose annotations have scores.

An image is named by its file name or by an id of the data set's ``images``; a category by its name, by an id of the
data set's ``categories``, or, without these, by 1..K in the sorted order of the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.core.json_files import read_json
from kit.schemas.csv_text import LINE, Cells, Fault, TableError

_ENTRY = "an object with image_id, category_id, bbox [x, y, width, height] and score"
_COLUMNS = ("image_id", *CORNERS, "score", "label")
_OPTIONAL = ("fold", "view")


def coco_cells(path: Path, labels: Sequence[str], do: str) -> Cells:
    """The entries as cells; ``line`` is an entry's number in the list, from 1.

    Raises TableError with the advice ``do`` if the file is no such list. An entry with an unknown image or category
    is a fault of the cells.
    """
    content = read_json(path, do)
    images: Mapping[Any, str] = {}
    categories: Mapping[Any, str] = dict(enumerate(labels, start=1))
    if isinstance(content, dict):
        images = _names_by_id(path, content, "images", "file_name", do)
        categories = _names_by_id(path, content, "categories", "name", do)
        content = content.get("annotations")
    if not isinstance(content, list):
        raise TableError(path, [Fault(path, None, type(content).__name__, "a list of COCO results")], do)
    label_set = set(labels)
    rows: list[dict[str, str]] = []
    faults: list[Fault] = []
    lines: list[int] = []
    for number, entry in enumerate(content, start=1):
        if not _is_complete(entry):
            faults.append(Fault(path, number, repr(entry), _ENTRY))
            continue
        image, category = entry["image_id"], entry["category_id"]
        name = images.get(image, image if isinstance(image, str) else None)
        label = category if category in label_set else categories.get(category)
        if name is None:
            faults.append(
                Fault(path, number, f"image_id {image!r}", "a file name, or an id of the file's own images")
            )
        if label is None:
            expected = f"a label, or an id of {dict(categories)}"
            faults.append(Fault(path, number, f"category_id {category!r}", expected))
        if name is not None and label is not None:
            try:
                rows.append(_row(entry, name, label))
            except OverflowError:  # an integer too large for a float
                faults.append(Fault(path, number, f"bbox {entry['bbox']!r}", _ENTRY))
                continue
            lines.append(number)
    optional = [column for column in _OPTIONAL if any(column in row for row in rows)]
    header = (*_COLUMNS, *optional)
    table = pd.DataFrame(rows, columns=list(header), index=pd.RangeIndex(len(rows)), dtype=object).fillna("")
    return Cells(path, header, 0, table.assign(**{LINE: np.array(lines, np.int64)}), tuple(faults))


def _names_by_id(path: Path, content: Mapping[str, Any], key: str, field: str, do: str) -> dict[Any, str]:
    """``id`` -> ``field`` of the objects in the list ``content[key]``. Raises TableError if it is no such list."""
    entries = content.get(key)
    valid = isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("id"), (int, str)) and isinstance(entry.get(field), str)
        for entry in entries
    )
    if not valid:
        expected = f"a data set with {key}: a list of objects with id and {field}"
        raise TableError(path, [Fault(path, None, f"{key} {entries!r}", expected)], do)
    return {entry["id"]: entry[field] for entry in entries or []}


def _is_complete(entry: Any) -> bool:
    if not isinstance(entry, dict) or not {"image_id", "category_id", "bbox", "score"} <= set(entry):
        return False
    bbox, ids = entry["bbox"], (entry["image_id"], entry["category_id"])
    numbers = isinstance(bbox, list) and len(bbox) == 4 and all(type(value) in (int, float) for value in bbox)
    return numbers and all(type(value) in (int, str) for value in ids)


def _row(entry: Mapping[str, Any], image_id: str, label: str) -> dict[str, str]:
    x_min, y_min, width, height = entry["bbox"]
    corners = (x_min, y_min, x_min + width, y_min + height)
    row = {"image_id": image_id, "label": label, "score": str(entry["score"])}
    row |= {name: str(value) for name, value in zip(CORNERS, corners, strict=True)}
    return row | {name: str(entry[name]) for name in _OPTIONAL if name in entry}
