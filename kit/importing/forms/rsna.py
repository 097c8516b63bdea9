"""RSNA's pneumonia challenge (Kaggle 2018): ``patientId,x,y,width,height,Target``, and a DICOM per patientId."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit.importing.forms.boxed_set import (
    FIX,
    TEST_PART,
    TRAIN_PART,
    BoxedSet,
    boxes_of,
    chosen,
    first_file,
    left_out,
    missing_pictures,
    no_such_form,
    pictures_by_name,
    read_columns,
)
from kit.schemas.csv_text import LINE, Fault

_STAGES = ("stage_2", "stage_1")
_COLUMNS = {
    "patientId": "image",
    "x": "x_min",
    "y": "y_min",
    "width": "width",
    "height": "height",
    "Target": "target",
}
_SIDES = ("x_min", "y_min", "width", "height")
_LABELS = {"0": "No finding", "1": "Pneumonia"}


def read_rsna(source: Path) -> BoxedSet:
    """The challenge's files in ``source``: a box is evidence of pneumonia, an image with Target 0 has none."""
    table = first_file(source, [f"{stage}_train_labels.csv" for stage in _STAGES])
    if table is None:
        do = "name the folder with stage_2_train_labels.csv and stage_2_train_images/ with --source"
        raise no_such_form(source, "RSNA's stage_2_train_labels.csv", do)
    stage = table.name.removesuffix("_train_labels.csv")
    folder = source / f"{stage}_train_images"
    found, repeated = pictures_by_name(folder, TRAIN_PART)
    cells, raw = read_columns(table, _COLUMNS, {})
    raw = raw.assign(image=f"{TRAIN_PART}/" + raw["image"], label=raw["target"].map(_LABELS), reader="")
    unknown = raw["label"].isna()
    faults = [*cells.faults, *repeated, *_wrong(table, raw[unknown], "Target 0 or 1")]
    boxes, _, wrong = boxes_of(cells, raw[~unknown], _SIDES)
    with_box = boxes[boxes["label"] == _LABELS["0"]]
    faults += [*wrong, *_wrong(table, with_box.assign(target="0"), "no box where Target is 0")]
    faults += missing_pictures(table, raw, found, folder)
    notes = left_out(found, set(raw["image"]), f"since {table.name} does not name them")
    test, twice = pictures_by_name(source / f"{stage}_test_images", TEST_PART)
    return BoxedSet(chosen(found, raw["image"]), boxes, [*faults, *twice], test=test, notes=notes, tables=[table])


def _wrong(path: Path, rows: pd.DataFrame, expected: str) -> list[Fault]:
    return [
        Fault(path, line, f"{image.partition('/')[2]}, Target {target}", expected, FIX)
        for line, image, target in zip(rows[LINE].tolist(), rows["image"], rows["target"], strict=True)
    ]
