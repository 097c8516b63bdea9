"""What a reader takes from a file of detections, whatever its form."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.core.errors import first_few
from kit.schemas.csv_text import LINE, Cells, Fault

NEEDED = ("image_id", *CORNERS, "score", "label")
OPTIONAL = {"fold": "0", "view": "plain", "part": "", "run": ""}  # and the value of a row without it
KEPT = ("fold", "view", "part")  # of the optional ones, those that are used
_ALONE = 5  # as many rows with one fault have a line each; more share a line
_SHOWN = 3
Id = int | str
Size = tuple[int, int]  # width and height, pixels


@dataclass(frozen=True)
class Ids:
    """What the ids of a file stand for: the file name of an image, the label of a category."""

    images: Mapping[Id, str]
    labels: Mapping[Id, str]
    sizes: Mapping[str, Size] = field(default_factory=dict)  # of the pictures if they are stated, by file_name

    @functools.cached_property
    def stems(self) -> frozenset[str]:
        """The images' file names without folder and ending, but those that are an id as well."""
        stems = {PurePosixPath(folder_and_name(name)[1]).stem for name in self.images.values()}
        return frozenset(stems - set(map(str, self.images)))


@dataclass(frozen=True)
class Foreign:
    """A file's rows as cells, with what was taken from it."""

    cells: Cells  # the columns NEEDED, and those of KEPT that the file has
    numbers: Mapping[Id, str] = field(default_factory=dict)  # number -> label, if the file has numbers for labels
    counted: bool = False  # nothing says which number is which label: counted_from_1 does
    sizes: Mapping[str, Size] = field(default_factory=dict)  # of the pictures, as the file states them
    in_fractions: bool = False  # corners are shares of the image's sides, not pixels
    origins: tuple[tuple[Path, int], ...] = ()  # file and line of every row, if there are several files


def counted_from_1(labels: Sequence[str]) -> Ids:
    """The ids of a file that brings none: categories 1..K in the sorted order of the labels.

    If labels are whole numbers themselves, a number is its label, and labels that are none have no number.
    """
    numbers: dict[Id, str] = {int(label): label for label in labels if label.isascii() and label.isdecimal()}
    return Ids({}, numbers or dict(enumerate(sorted(labels), start=1)))


def cells_of(path: Path, rows: Sequence[Mapping[str, str]], lines: Sequence[int], faults: Sequence[Fault]) -> Cells:
    """Rows as cells; a column of KEPT exists if a row has it, and is then empty in the others."""
    header = (*NEEDED, *(name for name in KEPT if any(name in row for row in rows)))
    table = pd.DataFrame(rows, columns=list(header), index=pd.RangeIndex(len(rows)), dtype=object).fillna("")
    return Cells(path, header, None, table.assign(**{LINE: np.array(lines, np.int64)}), tuple(faults))


def row(image_id: str, corners: Iterable[object], score: object, label: str) -> dict[str, str]:
    """The needed cells of a row as texts; None is JSON's null."""
    values = (image_id, *corners, score, label)
    return {name: "null" if value is None else str(value) for name, value in zip(NEEDED, values, strict=True)}


def stated_sizes(image_ids: pd.Series, sizes: Mapping[str, Size]) -> pd.Series:
    """Width and height that a file states for each row's image, by its file_name; None if it states none.

    A name without its folder has the size of the one file of that name, or none if several have other sizes.
    """
    by_name: dict[str, set[Size]] = {}
    for text, size in sizes.items():
        by_name.setdefault(folder_and_name(text)[1], set()).add(size)
    alone = {name: next(iter(found)) for name, found in by_name.items() if len(found) == 1}
    stated = {text: sizes.get(text, alone.get(folder_and_name(text)[1])) for text in image_ids.unique()}
    return pd.Series([stated[text] for text in image_ids], index=image_ids.index, dtype=object)


def folder_and_name(text: str) -> tuple[str, str]:
    """The last folder and the file name of a path in the way of any system; the folder is empty without one."""
    *folders, name = text.replace("\\", "/").split("/")
    return (folders[-1] if folders else ""), name


def by_cause(faults: Sequence[Fault]) -> list[Fault]:
    """Faults of rows that expect the same, joined in the first one's line if they are many."""
    causes: dict[str, list[Fault]] = {}
    for fault in faults:
        causes.setdefault(fault.expected, []).append(fault)
    joined = []
    for same in causes.values():
        if len(same) <= _ALONE:
            joined += same
            continue
        values = first_few(dict.fromkeys(fault.value for fault in same), _SHOWN, "; ")
        joined.append(dataclasses.replace(same[0], value=f"{len(same)} times: {values}"))
    return joined


def map_text(numbers: Mapping[Id, str]) -> str:
    """Numbers with their labels in a line: "1 = Atelectasis, 2 = Effusion"."""
    return ", ".join(f"{number} = {label}" for number, label in numbers.items())
