"""Ultralytics' YOLO folders: data.yaml names the folders of images, beside each a folder of labels.

A label file has a line a box: class, x, y, width, height as shares of the image's sides; or a polygon, of which the
box is taken. https://docs.ultralytics.com/datasets/detect
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kit.core.errors import KitError, first_few, reason
from kit.core.files import is_there
from kit.core.text_files import read_text
from kit.importing.forms.boxed_set import FIX, TEST_PART, BoxedSet, Picture, no_such_form, picture_files, rows_table
from kit.schemas.csv_text import Fault, TableError, to_numbers
from kit.schemas.foreign.content import by_cause, map_text

_PARTS = ("train", "val", "test")
_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
_LINE = "class x y width height"
_COUNT = 5
_MOST = 1.5  # a share of the image's side that is no share any more
_YAML = "data.yaml with names (the labels) and train, val or test (folders of images)"


def read_yolo(source: Path) -> BoxedSet:
    """A data.yaml, or the folder with it. An image without a label file has no finding.

    A folder that two parts name is read once, as the first. The images of a test part without labels are ``test``.
    """
    path = source if source.is_file() else first_yaml(source)
    content = _yaml(path)
    labels = _labels(path, content)
    pictures: dict[str, Picture] = {}
    test: dict[str, Picture] = {}
    rows: list[tuple[object, ...]] = []
    faults, files = [], [path]
    seen: dict[Path, str] = {}
    notes = []
    for part in _PARTS:
        for folder, image in _images(path, content, part):
            if image in seen:
                notes += [f"{folder} is named for {seen[image]} and {part}, and read once"] * (seen[image] != part)
                continue
            seen[image] = part
            key = image.as_posix()
            text = _label_file(image)
            if part == TEST_PART and not text.parent.is_dir():
                test[key] = Picture(image, part)
                continue
            pictures[key] = Picture(image, part)
            files += [text] * text.exists()
            for line, found in _lines(text, labels) if text.exists() else ():
                if isinstance(found, Fault):
                    faults.append(found)
                else:
                    rows.append((key, *found[1:], labels[int(found[0])], "", text, line))
    if not pictures:
        raise KitError(f"images in the folders that {path} names", "none", f"correct {path}: {_YAML}")
    return BoxedSet(pictures, rows_table(rows), by_cause(faults), test=test, in_fractions=True,
                    notes=list(dict.fromkeys(notes)), tables=files)  # fmt: skip


def first_yaml(source: Path) -> Path:
    """The data.yaml of a folder. Raises KitError without one."""
    path = next((source / name for name in _NAMES if (source / name).is_file()), None)
    found = sorted(source.glob("*.y*ml")) if source.is_dir() else []
    if path is None and len(found) != 1:
        raise no_such_form(source, "YOLO's data.yaml", f"name it with --source: {_YAML}")
    return path or found[0]


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(read_text(path, _YAML, FIX))
    except yaml.YAMLError as error:
        raise TableError(path, [Fault(path, None, reason(error), _YAML)], FIX) from error
    if not isinstance(content, dict) or not any(content.get(part) for part in _PARTS):
        found = f"the keys {first_few(content)}" if isinstance(content, dict) else type(content).__name__
        raise TableError(path, [Fault(path, None, found, _YAML)], FIX)
    return content


def _labels(path: Path, content: Mapping[str, Any]) -> dict[int | str, str]:
    """The label of each class number: ``names`` is a list, or an object by number."""
    names = content.get("names")
    labels = dict(enumerate(names)) if isinstance(names, list) else names if isinstance(names, dict) else {}
    if not labels or not all(type(key) is int for key in labels):
        raise TableError(path, [Fault(path, None, f"names {names!r}", "names: a label for each class from 0")], FIX)
    return {key: str(label) for key, label in labels.items()}


def _images(path: Path, content: Mapping[str, Any], part: str) -> Iterator[tuple[str, Path]]:
    """The images of a part with what names them: a folder, a text file of paths, or a list of these."""
    value = content.get(part) or []
    for named in value if isinstance(value, list) else [value]:
        place = _resolved(path.parent, content.get("path"), str(named))
        if place is None:
            raise KitError(
                f"the images of {part} in {path}", f"{named}: no such folder or file beside it",
                f"correct `{part}` or `path` in {path.name}: paths are read from `path`, else from its own folder",
            )  # fmt: skip
        if place.is_dir():
            yield from ((str(named), image.resolve()) for image in picture_files(place))
            continue
        yield from ((str(named), image) for image in _listed(place))


def _listed(path: Path) -> list[Path]:
    """The images of a text file with a path a line. Raises TableError with every line that names none."""
    lines = read_text(path, "a text file with the path of an image a line", FIX).splitlines()
    images = {number: path.parent / line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    faults = [
        Fault(path, number, lines[number - 1], "the path of an image, from the file's folder", FIX)
        for number, image in images.items()
        if not (is_there(image) and image.is_file())
    ]
    if faults:
        raise TableError(path, by_cause(faults), FIX)
    return [image.resolve() for image in images.values()]


def _resolved(folder: Path, root: Any, named: str) -> Path | None:
    """The folder or file of a path in data.yaml; Roboflow writes ../train/images for train/images."""
    roots = [folder / str(root), folder] if root else [folder]
    tried = [base / name for base in roots for name in (named, named.removeprefix("../"))]
    return next((place for place in tried if is_there(place)), None)


def _label_file(image: Path) -> Path:
    """The label file of an image: the last folder ``images`` in its path is ``labels``, the ending ``.txt``."""
    parts = list(image.parts)
    last = max((index for index, name in enumerate(parts[:-1]) if name == "images"), default=None)
    if last is not None:
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _lines(path: Path, labels: Mapping[int | str, str]) -> Iterator[tuple[int, tuple[float, ...] | Fault]]:
    """Each line as class number and corners in shares of the sides, or as its fault."""
    for line, text in enumerate(read_text(path, f"lines of {_LINE}", FIX).splitlines(), start=1):
        words = text.split()
        if not words:
            continue
        values = to_numbers(pd.Series(words, dtype=object))
        polygon = len(words) > _COUNT + 1 and len(words) % 2 == 1
        if not polygon and len(words) != _COUNT:
            yield line, Fault(path, line, text, f"{_LINE}, five numbers, or class and the points of a polygon", FIX)
        elif values.isna().any() or not words[0].isdecimal() or int(words[0]) not in labels:
            yield line, Fault(path, line, text, f"{_LINE}; a class of {map_text(labels)}, finite numbers", FIX)
        elif (values[1:].abs() > _MOST).any():
            yield line, Fault(path, line, text, f"{_LINE} as shares of the image's sides, 0 to 1", FIX)
        else:
            yield line, (values[0], *(_around(values[1:].tolist()) if polygon else _corners(*values[1:])))


def _corners(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _around(points: list[float]) -> tuple[float, ...]:
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
