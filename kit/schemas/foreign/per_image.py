"""Detections with a file or an object per image: YOLO's text folders, MMDetection's preds, torchvision's outputs.

YOLO and MMDetection number the classes from 0 in an order of their own, which a file ``classes.txt`` brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.core.errors import KitError, first_few
from kit.core.files import require_utf8_names
from kit.core.json_files import read_json
from kit.core.text_files import read_text
from kit.schemas.csv_text import Fault, TableError, to_numbers
from kit.schemas.file_names import TEST, TRAIN, is_companion
from kit.schemas.foreign.content import Foreign, Ids, by_cause, cells_of, map_text, row

CLASSES = "classes.txt"
_YOLO = "class x y width height confidence"
_COUNT = len(_YOLO.split())
_LISTS = ("boxes", "scores", "labels")
_MOST = 1.5  # a share of the image's side that is no share any more


def read_folder(folder: Path, do: str) -> Foreign:
    """The detections in a folder with a file per image, or in its subfolders ``train`` and ``test`` (in any case).

    Text files are YOLO's (shares of the image's sides, a line a box), JSON files MMDetection's (bboxes, scores,
    labels). An image has the name of its file. Raises TableError with all faults of the files, and KitError
    without files, with files in other subfolders, or without ``classes.txt`` in the folder or beside it.
    """
    inner = sorted(path for path in folder.glob("*") if path.is_dir() and not is_companion(path.name))
    places = [("", folder), *((path.name.lower(), path) for path in inner if path.name.lower() in (TRAIN, TEST))]
    _require_no_other_folder(folder, [path for path in inner if path.name.lower() not in (TRAIN, TEST)])
    files = [(part, path) for part, place in places for path in _files(place)]
    require_utf8_names(path for _, path in files)
    suffixes = {path.suffix.lower() for _, path in files}
    if len(suffixes) != 1:
        problem = "both" if suffixes else "none"
        expected = f"{folder} to hold a file per image: YOLO's .txt or MMDetection's .json"
        raise KitError(expected, problem, "name the folder of one kind of file with --detections FOLDER")
    labels = _classes(folder)
    in_text = suffixes == {".txt"}
    rows: list[dict[str, str]] = []
    faults: list[Fault] = []
    origins: list[tuple[Path, int]] = []
    for part, path in files:
        for number, found in _yolo(path, labels) if in_text else _preds(path, labels, do):
            if isinstance(found, Fault):
                faults.append(found)
                continue
            rows.append(found | ({"part": part} if part else {}))
            origins.append((path, number))
    faults = by_cause(faults)
    cells = cells_of(folder, rows, range(1, len(rows) + 1), faults)
    return Foreign(cells, labels, in_fractions=in_text, origins=tuple(origins))


def outputs_by_image(path: Path, content: Mapping[str, Any], labels: Sequence[str], ids: Ids, do: str) -> Foreign:
    """A JSON object with torchvision's boxes, labels and scores by image (file name or id) as cells.

    A label is a name or a number of ``ids``. Raises TableError with the advice ``do`` if it is no such object.
    """
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    faults: list[Fault] = []
    names = {str(number): name for number, name in ids.images.items()}
    numbered = False
    for number, (image, output) in enumerate(content.items(), start=1):
        for found in _lists(path, number, output, "boxes"):
            if isinstance(found, Fault):
                faults.append(found)
                continue
            corners, score, label = found
            named = label in labels if isinstance(label, str) else False
            numbered |= not named
            label = label if named else ids.labels.get(label)
            if label is None:
                faults.append(
                    Fault(path, number, f"label {found[2]!r}", f"a label, or one of {map_text(ids.labels)}")
                )
                continue
            rows.append(row(names.get(image, image), corners, score, label))
            lines.append(number)
    if faults:
        raise TableError(path, by_cause(faults), do)
    return Foreign(cells_of(path, rows, lines, ()), ids.labels if numbered else {}, sizes=ids.sizes)


def _classes(folder: Path) -> dict[int | str, str]:
    """The label of each class's number, from 0: the lines of ``classes.txt``, in any upper and lower case."""
    places = (folder, folder.parent)
    path = next((path for place in places for path in sorted(place.glob("*")) if _is_classes(path)), None)
    goal = path or folder / CLASSES
    do = f"write {goal} with a label a line, in the order in which the detector was trained on them"
    if path is None:
        raise KitError(f"{CLASSES} in {folder} or beside it: the order of the classes", "no such file", do)
    text = read_text(path, f"{path}, a text file with a label a line", do).rstrip()
    lines = [line.strip() for line in text.splitlines()]
    blank = [
        Fault(path, number, "", "a label: a class's number is that of its line, counted from 0")
        for number, line in enumerate(lines, start=1)
        if not line
    ]
    if blank:
        raise TableError(path, by_cause(blank), "take out the blank lines, or write the labels that belong there")
    return dict(enumerate(lines))


def _files(place: Path) -> list[Path]:
    """The files of a folder that have an image's detections, sorted."""
    return sorted(
        path
        for path in place.glob("*")
        if path.suffix.lower() in (".txt", ".json")
        and path.name.lower() != CLASSES
        and path.is_file()
        and not is_companion(path.name)
    )


def _is_classes(path: Path) -> bool:
    return path.name.lower() == CLASSES and path.is_file()


def _require_no_other_folder(folder: Path, inner: Sequence[Path]) -> None:
    """Raise KitError for subfolders with files of detections that would be passed over."""
    others = {path.name: len(files) for path in inner if (files := _files(path))}
    if others:
        named = first_few(f"{name}/ with {count} files" for name, count in others.items())
        raise KitError(
            f"{folder} to hold a file per image, or the subfolders {TRAIN}/ and {TEST}/", named,
            f"move the files of {next(iter(others))}/ to {TRAIN}/ or {TEST}/, whichever has these images in data/, "
            "or out of the folder",
        )  # fmt: skip


def _yolo(path: Path, labels: Mapping[int | str, str]) -> Iterator[tuple[int, dict[str, str] | Fault]]:
    """Each line of a YOLO text file, as a row (corners in shares of the image's sides) or as its fault."""
    try:
        lines = read_text(path, f"lines of {_YOLO}", "").splitlines()
    except KitError as error:
        yield 0, Fault(path, None, error.found, error.expected)
        return
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        fault = _yolo_fault(words, labels)
        if fault:
            yield number, Fault(path, number, line, fault)
            continue
        x, y, width, height = map(float, words[1:5])
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        yield number, row(path.stem, corners, words[5], labels[int(words[0])])


def _yolo_fault(words: Sequence[str], labels: Mapping[int | str, str]) -> str | None:
    if len(words) == _COUNT - 1:
        return f"{_YOLO} (Ultralytics writes the confidence with save_conf=True)"
    if len(words) != _COUNT:
        return f"{_YOLO}, six numbers"
    if to_numbers(pd.Series(words, dtype=object)).isna().any():
        return f"{_YOLO}, finite decimal numbers"
    if not words[0].isdecimal() or int(words[0]) not in labels:
        return f"a class of {CLASSES}: {map_text(labels)}"
    if any(abs(float(word)) > _MOST for word in words[1:5]):
        return f"{_YOLO}, where x, y, width and height are shares of the image's sides, 0 to 1"
    return None


def _preds(path: Path, labels: Mapping[int | str, str], do: str) -> Iterator[tuple[int, dict[str, str] | Fault]]:
    """Each detection of a JSON file of MMDetection's inferencer, as a row or as its fault."""
    for number, found in enumerate(_lists(path, None, read_json(path, do, finite=False), "bboxes"), start=1):
        if isinstance(found, Fault):
            yield number, found
        elif found[2] in labels:
            yield number, row(path.stem, found[0], found[1], labels[found[2]])
        else:
            yield number, Fault(path, number, f"label {found[2]!r}", f"a class of {CLASSES}: {map_text(labels)}")


def _lists(path: Path, line: int | None, output: Any, boxes: str) -> Iterator[tuple[Any, Any, Any] | Fault]:
    """Corners, score and label of each detection in an object of three lists of the same length."""
    expected = f"an object with the lists {boxes} (x_min, y_min, x_max, y_max), labels and scores, equally long"
    values = [output.get(key) for key in (boxes, *_LISTS[1:])] if isinstance(output, dict) else []
    lists = [value for value in values if isinstance(value, list)]
    if len(lists) != len(_LISTS) or len({len(each) for each in lists}) != 1:
        yield Fault(path, line, repr(output), expected)
        return
    for corners, score, label in zip(*lists, strict=True):
        valid = isinstance(corners, list) and len(corners) == len(CORNERS) and type(label) in (int, str)
        yield (
            (corners, score, label)
            if valid
            else Fault(path, line, f"{boxes} {corners!r}, label {label!r}", expected)
        )
