"""COCO data sets with true boxes: images, categories, and annotations with bbox [x, y, width, height].

The files are COCO's own (annotations/instances_train2017.json), Roboflow's (train/_annotations.coco.json), or one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.core.errors import first_few
from kit.core.files import is_there
from kit.core.json_files import read_json
from kit.importing.forms.boxed_set import (
    FIX,
    BoxedSet,
    Picture,
    is_four_numbers,
    missing_pictures,
    named_rows,
    no_such_form,
    picture_files,
    rows_table,
)
from kit.schemas.csv_text import Fault
from kit.schemas.foreign.coco import ids_of
from kit.schemas.foreign.content import Ids, by_cause

_PLACES = ("*.json", "annotations/*.json", "*/_annotations.coco.json")
_ENTRY = "an object with image_id, category_id and bbox [x, y, width, height], numbers"


def read_coco(source: Path) -> BoxedSet:
    """A COCO file, or all data sets of a folder; each file is a part, named after it. Crowds are left out."""
    if source.is_file():
        paths, root = [source], source.parent
    else:
        paths, root = sorted({path for place in _PLACES for path in source.glob(place)}), source
        paths = [path for path in paths if path.name.startswith("instances")] or paths
    sets = [(path, content) for path in paths if _is_data_set(content := read_json(path, FIX, finite=False))]
    if not sets:
        do = "name the .json file with images, categories and annotations with --source"
        raise no_such_form(source, "a COCO data set", do)
    files = picture_files(root)
    rows: list[tuple[object, ...]] = []
    faults, notes = [], []
    pictures: dict[str, Picture] = {}
    stated: dict[str, tuple[int, int]] = {}
    for path, content in sets:
        part = "" if len(sets) == 1 else path.parent.name if path.name.startswith("_") else path.stem
        ids = ids_of(path, content, (), FIX)
        found = {f"{part}/{name}": place for name in ids.images.values() if (place := _place(name, path, files))}
        named = named_rows([(f"{part}/{name}", 0) for name in ids.images.values()])
        faults += missing_pictures(path, named, found, root)
        pictures |= {key: Picture(place, part) for key, place in found.items()}
        stated |= {key: size for key in found if (size := ids.sizes.get(key.rpartition("/")[2]))}
        boxes, wrong, crowds = _boxes(path, content["annotations"], ids, part)
        rows += boxes
        faults += wrong
        notes += [f"{path.name}: {crowds} annotations of crowds (iscrowd 1) are left out"] if crowds else []
    return BoxedSet(
        pictures, rows_table(rows), faults, stated=stated, notes=notes, tables=[path for path, _ in sets]
    )


def _is_data_set(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("annotations"), list) and "images" in content


def _place(name: str, path: Path, files: Sequence[Path]) -> Path | None:
    """The picture of a file_name: beside the data set, else the one whose path is most like the data set's name."""
    beside = path.parent / name
    if is_there(beside) and beside.is_file():
        return beside
    fitting = [file for file in files if f"/{file.as_posix()}".endswith(f"/{name}")]
    part = path.stem.partition("_")[2]
    return next((file for file in fitting if part and part in file.parts), fitting[0] if fitting else None)


def _boxes(
    path: Path, annotations: Sequence[Any], ids: Ids, part: str
) -> tuple[list[tuple[object, ...]], list[Fault], int]:
    """The rows of a data set, its faulty annotations, and how many are crowds."""
    rows: list[tuple[object, ...]] = []
    faults = []
    crowds = 0
    for number, entry in enumerate(annotations, start=1):
        expected = _expected(entry, ids)
        if expected:
            faults.append(Fault(path, number, repr(entry), expected, FIX))
        elif entry.get("iscrowd") == 1:
            crowds += 1
        else:
            x, y, width, height = entry["bbox"]
            name, label = ids.images[entry["image_id"]], ids.labels[entry["category_id"]]
            rows.append((f"{part}/{name}", x, y, x + width, y + height, label, "", path, number))
    return rows, by_cause(faults), crowds


def _expected(entry: Any, ids: Ids) -> str:
    """What an annotation should be; "" if it is."""
    if not isinstance(entry, dict) or not is_four_numbers(entry.get("bbox")):
        return _ENTRY
    for key, known in (("image_id", ids.images), ("category_id", ids.labels)):
        if type(entry.get(key)) not in (int, str) or entry[key] not in known:
            return f"{key} to be an id of the data set's {_owner(key)}: {first_few(known, 3)}"
    return ""


def _owner(key: str) -> str:
    return {"image_id": "images", "category_id": "categories"}[key]
