"""VinDr-CXR: a row per reader and finding, ``No finding`` rows without corners.

The tables are those of Kaggle's VinBigData competition (train.csv) and of PhysioNet (annotations_train.csv,
annotations_test.csv, https://doi.org/10.13026/3akn-b287).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.importing.forms.boxed_set import (
    TEST_PART,
    TRAIN_PART,
    BoxedSet,
    Picture,
    boxes_of,
    chosen,
    first_file,
    joined,
    left_out,
    missing_pictures,
    no_such_form,
    pictures_by_name,
    read_columns,
)

_TABLES = {
    TRAIN_PART: ("train.csv", "annotations/annotations_train.csv", "annotations_train.csv"),
    TEST_PART: ("annotations/annotations_test.csv", "annotations_test.csv"),
}
_COLUMNS = {"image_id": "image", "class_name": "label", **{name: name for name in CORNERS}}


def read_vindr(source: Path) -> BoxedSet:
    """VinDr-CXR in ``source``; PhysioNet's test part has boxes, Kaggle's has none.

    Raises KitError without a table of the training part.
    """
    tables = {part: path for part, names in _TABLES.items() if (path := first_file(source, names))}
    if TRAIN_PART not in tables:
        do = "name the folder with train.csv and train/, or with annotations/, train/ and test/, with --source"
        raise no_such_form(source, "VinDr-CXR's train.csv or annotations/annotations_train.csv", do)
    rows, faults, notes = [], [], []
    pictures: dict[str, Picture] = {}
    read: dict[str, set[str]] = {}
    for part, path in tables.items():
        found, repeated = pictures_by_name(source / part, part)
        cells, raw = read_columns(path, _COLUMNS, {"rad_id": "reader"})
        raw = raw.assign(image=part + "/" + raw["image"])
        boxes, empty, wrong = boxes_of(cells, raw)
        named = pd.concat([boxes, empty])
        faults += [*cells.faults, *repeated, *wrong, *missing_pictures(path, named, found, source / part)]
        notes += left_out(found, set(raw["image"]), f"since {path.name} does not name them")
        pictures |= chosen(found, named["image"])
        rows.append(boxes)
        for reader, names in named[named["reader"] != ""].groupby("reader")["image"]:
            read.setdefault(str(reader), set()).update(names)
    test, repeated = ({}, []) if TEST_PART in tables else pictures_by_name(source / TEST_PART, TEST_PART)
    readers = {reader: frozenset(names) for reader, names in read.items()}
    return BoxedSet(
        pictures, joined(rows), [*faults, *repeated], readers, test=test, notes=notes, tables=list(tables.values())
    )
