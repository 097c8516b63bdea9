"""Pascal VOC: an XML file per image in Annotations/, the images in JPEGImages/ or beside them.

VOC counts pixels from 1 and includes the last; labelImg and others count from 0, as a corner at 0 shows.
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from kit.core.errors import reason
from kit.importing.forms.boxed_set import (
    FIX,
    BoxedSet,
    Picture,
    counted_names,
    no_such_form,
    picture_files,
    rows_table,
)
from kit.schemas.csv_text import Fault, to_numbers
from kit.schemas.foreign.content import by_cause

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_OBJECT = f"an object with name and bndbox ({', '.join(_CORNERS)}: numbers)"


def read_voc(source: Path) -> BoxedSet:
    """The XML files anywhere in ``source`` and their images. An image without an XML file is not annotated."""
    files = picture_files(source) if source.is_dir() else []
    by_name: dict[str, list[Path]] = {}
    for path in files:
        by_name.setdefault(path.name, []).append(path)
        by_name.setdefault(path.stem, []).append(path)
    pictures: dict[str, Picture] = {}
    rows: list[tuple[object, ...]] = []
    faults: list[Fault] = []
    missing: list[str] = []
    stated: dict[str, tuple[int, int]] = {}
    paths = sorted(source.rglob("*.xml")) if source.is_dir() else []
    for path in paths:
        root = _root(path)
        if isinstance(root, Fault):
            faults.append(root)
            continue
        picture = _picture(path, (root.findtext("filename") or "").strip(), by_name)
        if picture is None:
            missing.append(path.name)
            continue
        key = picture.as_posix()
        pictures[key] = Picture(picture, path.parent.parent.name if path.parent.name == "Annotations" else "")
        sides = [(root.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
        if all(side.isdecimal() and int(side) for side in sides):
            stated[key] = (int(sides[0]), int(sides[1]))
        for number, item in enumerate(root.findall("object"), start=1):
            label = (item.findtext("name") or "").strip()
            corners = to_numbers(pd.Series([(item.findtext(f"bndbox/{name}") or "").strip() for name in _CORNERS]))
            if not label or corners.isna().any():
                faults.append(Fault(path, number, ElementTree.tostring(item, "unicode").strip(), _OBJECT, FIX))
            else:
                rows.append((key, *corners, label, "", path, number))
    if not paths:
        raise no_such_form(
            source, "VOC's XML files", "name the folder with Annotations/ and JPEGImages/ with --source"
        )
    if missing:
        faults.append(
            Fault(source, None, f"{len(missing)} XML files without their picture: {counted_names(missing)}",
                  "a picture named as in filename, or as the XML file",
                  "put the pictures there, or move the XML files out")
        )  # fmt: skip
    table = rows_table(rows)
    if not (table[["x_min", "y_min"]] == 0).any(axis=None):
        table[["x_min", "y_min"]] -= 1
    others = len(files) - len(pictures)
    notes = [f"left out, since no XML file describes them: {others} pictures"] if others else []
    return BoxedSet(pictures, table, by_cause(faults), stated=stated, notes=notes, tables=paths)


def _root(path: Path) -> ElementTree.Element | Fault:
    """The element ``annotation`` of a file; entities of its own are refused, since they can be of any size."""
    try:
        content = path.read_bytes()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            return Fault(path, None, "a DOCTYPE or an ENTITY", "XML without them, as VOC's", FIX)
        root = ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        return Fault(path, None, reason(error), "an XML file of VOC", FIX)
    return root if root.tag == "annotation" else Fault(path, None, f"<{root.tag}>", "<annotation>, as VOC's", FIX)


def _picture(path: Path, filename: str, by_name: Mapping[str, list[Path]]) -> Path | None:
    """The picture of an XML file: of the name that it states, or of its own; nearest to it if there are several."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    found = by_name.get(name) or by_name.get(path.stem) or []
    near = [picture for picture in found if picture.parent in (path.parent, path.parent.parent / "JPEGImages")]
    return next(iter(near or found), None)
