"""NIH ChestX-ray14: BBox_List_2017.csv, whose header splits at its commas, and Data_Entry_2017.csv.

Few of the 112,120 images have boxes. One without a box is empty only if Data_Entry says "No Finding".
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kit.importing.forms.boxed_set import (
    TRAIN_PART,
    BoxedSet,
    boxes_of,
    chosen,
    first_file,
    missing_pictures,
    no_such_form,
    pictures_by_name,
    read_columns,
    with_patients,
)
from kit.schemas.no_finding import says_no_finding
from kit.schemas.tables import NIH_COLUMNS

_BOXES = ("BBox_List_2017.csv", "BBox_list_2017.csv", "BBox_List_2017_Official_NIH.csv")
_ENTRIES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_OURS = ("image", "label", "x_min", "y_min", "width", "height")


def read_nih(source: Path) -> BoxedSet:
    """The lists in ``source`` and the images anywhere in it (images/, images_001/images/)."""
    table = first_file(source, _BOXES)
    if table is None:
        do = f"name the folder with {_BOXES[0]} and the images with --source"
        raise no_such_form(source, f"NIH's {_BOXES[0]}", do)
    found, repeated = pictures_by_name(source, TRAIN_PART, ending=True)
    cells, raw = read_columns(table, dict(zip(NIH_COLUMNS, _OURS, strict=True)), {})
    raw = raw.assign(image=f"{TRAIN_PART}/" + raw["image"], reader="")
    boxes, _, faults = boxes_of(cells, raw, _OURS[2:])
    faults = [*cells.faults, *repeated, *faults, *missing_pictures(table, raw, found, source)]
    tables, notes = [table], []
    listed, unboxed, patient_of = set(raw["image"]), set(found) - set(raw["image"]), {}
    entries = first_file(source, _ENTRIES)
    if entries:
        tables.append(entries)
        entry_cells, entry = read_columns(entries, {"Image Index": "image", "Finding Labels": "label"},
                                          {"Patient ID": "patient"})  # fmt: skip
        faults += entry_cells.faults
        names = f"{TRAIN_PART}/" + entry["image"]
        patient_of = {name: patient for name, patient in zip(names, entry["patient"], strict=True) if patient}
        healthy = set(names[says_no_finding(entry["label"])])
        unboxed -= healthy
        listed |= healthy & set(found)
    else:
        notes.append(f"missing {_ENTRIES[0]}: images that {table.name} does not name are left out, since nothing "
                     "says that they show no finding")  # fmt: skip
    named = pd.Series(sorted(listed | unboxed), dtype=object)
    pictures = with_patients(chosen(found, named), patient_of)
    return BoxedSet(pictures, boxes, faults, {}, frozenset(unboxed), notes=notes, tables=tables)
