"""COCO JSON as text cells: the list of results that detectors write, or a data set whose annotations have scores.

An image is named by the entry's file name or by an id of a data set's ``images``; a category by its name, by an id
of a data set's ``categories``, or, without these, by 1..K in the sorted order of the labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.core.errors import first_few
from kit.core.json_files import read_json
from kit.schemas.csv_text import Fault, TableError
from kit.schemas.file_names import IMAGE_SUFFIXES
from kit.schemas.foreign.content import (
    KEPT,
    Foreign,
    Ids,
    by_cause,
    cells_of,
    counted_from_1,
    folder_and_name,
    map_text,
    row,
)

_ENTRY = "an object with image_id, category_id, bbox [x, y, width, height] and score"
_LARGEST_PX = 1e9
_KEYS = ("image_id", "category_id", "bbox", "score")
_BRING_IDS = (
    "add --images ANNOTATIONS.json, the COCO data set that was detected on, with its images and categories; or "
    "write file names and labels into the entries"
)
_MAKE_UNIQUE = "number them anew, each id once, in the annotations too (sets that were merged count from 1 twice)"


def read_ids(path: Path, labels: Sequence[str], do: str) -> Ids:
    """The ids of a COCO data set, whose annotations are not needed; without categories they are 1..K.

    Raises TableError if the file is none, or if an id occurs twice.
    """
    content = read_json(path, do, finite=False)
    if not isinstance(content, dict):
        raise TableError(
            path, [Fault(path, None, type(content).__name__, "a COCO data set: an object with images")], do
        )
    return ids_of(path, content, labels, do)


def ids_of(path: Path, content: Mapping[str, Any], labels: Sequence[str], do: str) -> Ids:
    """The ids of a COCO data set's content. Raises TableError if an id occurs twice in images or categories."""
    images = _entries(path, content, "images", "file_name", do)
    categories = _entries(path, content, "categories", "name", do) if "categories" in content else []
    repeated = [
        Fault(path, None, f"{key} with the id {number} twice or more: {first_few(names)}", f"each id of {key} once")
        for key, entries, field in (("images", images, "file_name"), ("categories", categories, "name"))
        for number, names in _repeated(entries, field)
    ]
    named = Counter(entry["file_name"] for entry in images)
    repeated += [
        Fault(path, None, f"images with the file_name {name} twice or more", "each file_name of images once")
        for name, count in named.items()
        if count > 1
    ]
    if repeated:
        raise TableError(path, by_cause(repeated), f"{_MAKE_UNIQUE}; then give the file again")
    sizes = {
        entry["file_name"]: (int(entry["width"]), int(entry["height"]))
        for entry in images
        if all(_is_side(entry.get(side)) for side in ("width", "height"))
    }
    names = {entry["id"]: entry["name"] for entry in categories} or counted_from_1(labels).labels
    return Ids({entry["id"]: entry["file_name"] for entry in images}, names, sizes)


def coco_results(path: Path, entries: Any, labels: Sequence[str], ids: Ids, do: str) -> Foreign:
    """The entries of a list of results as cells; ``line`` is an entry's number in the list, from 1.

    Raises TableError with the advice ``do`` if ``entries`` is no list. An entry that is incomplete, or with an
    unknown image or category, is a fault of the cells.
    """
    if not isinstance(entries, list):
        raise TableError(path, [Fault(path, None, type(entries).__name__, "a list of COCO results")], do)
    label_set = set(labels)
    rows: list[dict[str, str]] = []
    faults: list[Fault] = []
    lines: list[int] = []
    numbered = False
    for number, entry in enumerate(entries, start=1):
        found = _faults(entry)
        if found:
            faults += [Fault(path, number, *fault) for fault in found]
            continue
        name, label = _image(entry, ids), entry["category_id"]
        if label not in label_set:
            label, numbered = ids.labels.get(label), True
        if name is None:
            faults.append(Fault(path, number, *_unknown_image(entry, ids)))
        if label is None:
            faults.append(Fault(path, number, *_unknown_category(entry, ids)))
        if name is not None and label is not None:
            rows.append(_row(entry, name, label))
            lines.append(number)
    return Foreign(cells_of(path, rows, lines, faults), ids.labels if numbered else {}, sizes=ids.sizes)


def _entries(path: Path, content: Mapping[str, Any], key: str, field: str, do: str) -> list[dict[str, Any]]:
    """The objects with ``id`` and ``field`` in the list ``content[key]``. Raises TableError for any other."""
    entries = content.get(key)
    expected = f"a data set with {key}: a list of objects with id (a whole number or a text) and {field} (a text)"
    if not isinstance(entries, list):
        found = f"no {key}" if key not in content else f"{key} {entries!r}"
        raise TableError(path, [Fault(path, None, found, expected)], do)
    faults = [
        Fault(path, None, f"entry {number} of {key}: {entry!r}", expected)
        for number, entry in enumerate(entries, start=1)
        if not isinstance(entry, dict)
        or type(entry.get("id")) not in (int, str)
        or not isinstance(entry.get(field), str)
    ]
    if faults:
        raise TableError(path, by_cause(faults), do)
    return entries


def _is_side(value: Any) -> bool:
    """Whether a width or height is stated: as a whole number, as ``48.0`` or as a text of digits."""
    if isinstance(value, str):
        return value.isascii() and value.isdecimal()
    return type(value) is int or (type(value) is float and value.is_integer())


def _repeated(entries: Sequence[Mapping[str, Any]], field: str) -> list[tuple[str, list[str]]]:
    """The ids that several entries have, each with the names of these entries; 1 and "1" are one id."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        names.setdefault(str(entry["id"]), []).append(entry[field])
    return [(number, of_number) for number, of_number in names.items() if len(of_number) > 1]


def _faults(entry: Any) -> list[tuple[str, str]]:
    """What is wrong with an entry by itself: what was found, what was expected."""
    if not isinstance(entry, dict):
        return [(repr(entry), _ENTRY)]
    missing = [key for key in _KEYS if key not in entry]
    if missing == ["score"]:
        return [(f"no score in {entry!r}", f"{_ENTRY}: detections, not true boxes")]
    if missing:
        return [(f"no {', '.join(missing)} in {entry!r}", _ENTRY)]
    faults = [
        (f"{key} {entry[key]!r}", f"{_ENTRY}; ids are whole numbers or texts, not {_kind(entry[key])}")
        for key in ("image_id", "category_id")
        if type(entry[key]) not in (int, str)
    ]
    bbox = entry["bbox"]
    if not isinstance(bbox, list) or len(bbox) != 4 or any(type(value) not in (int, float) for value in bbox):
        faults.append((f"bbox {bbox!r}", _ENTRY))
    elif not all(abs(value) < _LARGEST_PX for value in bbox):  # NaN, infinities, integers beyond every float
        faults.append((f"bbox {bbox!r}", f"{_ENTRY}; finite numbers"))
    return faults


def _image(entry: Mapping[str, Any], ids: Ids) -> str | None:
    """The entry's file name (with its folder, if its id has one), else that of its id, else a name in image_id."""
    image = entry["image_id"]
    of_id = ids.images.get(image)
    if isinstance(entry.get("file_name"), str):
        name = str(entry["file_name"])
        return of_id if of_id is not None and folder_and_name(of_id)[1] == name else name
    is_name = isinstance(image, str) and (
        not ids.images or image.lower().endswith(IMAGE_SUFFIXES) or image in ids.stems
    )
    return of_id if of_id is not None else image if is_name else None


def _unknown_image(entry: Mapping[str, Any], ids: Ids) -> tuple[str, str, str]:
    found = f"image_id {entry['image_id']!r} ({_kind(entry['image_id'])})"
    if not ids.images:
        return found, "a file name in image_id or file_name, or an id of the images in --images", _BRING_IDS
    kinds = " and ".join(sorted({_kind(number) for number in ids.images}))
    expected = f"an id of the data set's images ({first_few(map(repr, ids.images), 3)}: {kinds}), or a file name"
    return found, expected, ""


def _unknown_category(entry: Mapping[str, Any], ids: Ids) -> tuple[str, str, str]:
    found = f"category_id {entry['category_id']!r} ({_kind(entry['category_id'])})"
    return found, f"a label, or a number of {map_text(ids.labels)}", "" if ids.images else _BRING_IDS


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    return {int: "a whole number", float: "a decimal number", str: "a text"}[type(value)]


def _row(entry: Mapping[str, Any], image_id: str, label: str) -> dict[str, str]:
    x_min, y_min, width, height = entry["bbox"]
    corners = (x_min, y_min, x_min + width, y_min + height)
    return row(image_id, corners, entry["score"], label) | {
        name: str(entry[name]) for name in KEPT if entry.get(name) is not None
    }
