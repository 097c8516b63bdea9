"""ChestX-Det and ChestX-Det10 (Deepwise): a JSON list per part with file_name, syms, boxes, and maybe polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.core.json_files import read_json
from kit.importing.forms.boxed_set import (
    FIX,
    TEST_PART,
    TRAIN_PART,
    BoxedSet,
    Picture,
    chosen,
    first_file,
    is_four_numbers,
    left_out,
    missing_pictures,
    named_rows,
    no_such_form,
    pictures_by_name,
    rows_table,
)
from kit.schemas.csv_text import Fault, TableError
from kit.schemas.foreign.content import by_cause

_LISTS = {
    TRAIN_PART: ("ChestX_Det_train.json", "train.json", "annotations/train.json"),
    TEST_PART: ("ChestX_Det_test.json", "test.json", "annotations/test.json"),
}
_ENTRY = "an object with file_name, syms (a label a box) and boxes ([x1, y1, x2, y2], numbers)"


def read_chestx_det(source: Path) -> BoxedSet:
    """The lists in ``source`` and the images below train_data/ and test_data/ (or train/ and test/).

    Both parts have boxes. An entry without boxes is an image without a finding.
    """
    lists = {part: path for part, names in _LISTS.items() if (path := first_file(source, names))}
    if not lists:
        do = "name the folder with ChestX_Det_train.json and train_data/ with --source"
        raise no_such_form(source, "ChestX_Det_train.json or train.json", do)
    rows: list[tuple[object, ...]] = []
    faults, notes = [], []
    pictures: dict[str, Picture] = {}
    for part, path in lists.items():
        folder = next((place for name in (f"{part}_data", part) if (place := source / name).is_dir()), source)
        found, repeated = pictures_by_name(folder, part, ending=True)
        entries, wrong = _entries(path)
        named = named_rows([(f"{part}/{entry['file_name']}", line) for line, entry in entries])
        rows += [
            (f"{part}/{entry['file_name']}", *corners, label, "", path, line)
            for line, entry in entries
            for label, corners in zip(entry["syms"], entry["boxes"], strict=True)
        ]
        faults += [*repeated, *wrong, *missing_pictures(path, named, found, folder)]
        notes += left_out(found, set(named["image"]), f"since {path.name} does not name them")
        pictures |= chosen(found, named["image"])
    return BoxedSet(pictures, rows_table(rows), faults, notes=notes, tables=list(lists.values()))


def _entries(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[Fault]]:
    """The entries of a list with their numbers from 1, and the faults of the others."""
    content = read_json(path, FIX, finite=False)
    if not isinstance(content, list):
        raise TableError(path, [Fault(path, None, type(content).__name__, f"a list of entries: {_ENTRY}")], FIX)
    numbered = list(enumerate(content, start=1))
    faults = [Fault(path, number, repr(entry), _ENTRY) for number, entry in numbered if not _is_entry(entry)]
    return [(number, entry) for number, entry in numbered if _is_entry(entry)], by_cause(faults)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        return False
    labels, boxes = entry.get("syms"), entry.get("boxes")
    if not isinstance(labels, list) or not isinstance(boxes, list) or len(labels) != len(boxes):
        return False
    return all(isinstance(label, str) for label in labels) and all(map(is_four_numbers, boxes))
