"""What every reader of a publisher's form returns, and what they share: pictures by name, rows with their lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.core.errors import KitError, first_few
from kit.importing.dicom import DICOM_SUFFIXES
from kit.schemas.csv_text import LINE, Cells, Fault, TableError, read_cells
from kit.schemas.file_names import is_companion
from kit.schemas.image_headers import IMAGE_SUFFIXES
from kit.schemas.no_finding import has_no_corners, stands_for_no_finding
from kit.schemas.number_cells import parse_numbers

TRAIN_PART, TEST_PART = "train", "test"
ROW_COLUMNS = ("image", *CORNERS, "label", "reader", "file", LINE)
FIX = "correct the file (a copy of it, if it is the publisher's), and import again"
_NO_FINDING = "No finding"
_MOST = 1e9  # of a corner; NaN is not below it either


@dataclass(frozen=True)
class Picture:
    """An image file of a set; ``part`` is the publisher's (train, val), ``patient`` who is on it, if known."""

    path: Path
    part: str
    patient: str = ""


@dataclass(frozen=True)
class BoxedSet:
    """A set as its publisher wrote it, before anything is checked against the pictures.

    ``rows`` has ROW_COLUMNS, corners in pixels of the picture (or shares of its sides, ``in_fractions``).
    """

    pictures: Mapping[str, Picture]  # those that the set says are annotated, by the name that rows use
    rows: pd.DataFrame
    faults: Sequence[Fault] = ()
    readers: Mapping[str, frozenset[str]] = field(default_factory=dict)  # the pictures that each reader read
    unboxed: frozenset[str] = frozenset()  # pictures with findings that have no box: not annotated, not empty
    test: Mapping[str, Picture] = field(default_factory=dict)  # without truth
    stated: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # width and height, if the set states them
    in_fractions: bool = False
    notes: Sequence[str] = ()
    tables: Sequence[Path] = ()  # every file that was read for the rows


def picture_files(folder: Path) -> list[Path]:
    """The image files anywhere in a folder (PNG, JPEG, DICOM by their endings), sorted; none without the folder."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith((*IMAGE_SUFFIXES, *DICOM_SUFFIXES))
        and not is_companion(path.relative_to(folder).as_posix())
        and path.is_file()
    )


def pictures_by_name(folder: Path, part: str, ending: bool = False) -> tuple[dict[str, Picture], list[Fault]]:
    """The pictures in a folder by ``PART/NAME``, without or with ``ending``; a fault for a name of two files."""
    found: dict[str, Picture] = {}
    faults = []
    for path in picture_files(folder):
        key = f"{part}/{path.name if ending else path.stem}"
        if key in found:
            also = found[key].path.relative_to(folder)
            faults.append(Fault(path, None, f"{path.relative_to(folder)} and {also}", "one picture of each name",
                                "move one of the two out of the folder"))  # fmt: skip
        found.setdefault(key, Picture(path, part))
    return found, faults


def first_file(source: Path, names: Iterable[str]) -> Path | None:
    """The first of the files that is there."""
    return next((source / name for name in names if (source / name).is_file()), None)


def no_such_form(source: Path, expected: str, do: str) -> KitError:
    """The error of a source that holds nothing of a form."""
    content = sorted(path.name for path in source.iterdir()) if source.is_dir() else []
    found = (
        f"a folder with {first_few(content)}" if content else "an empty folder" if source.is_dir() else "no folder"
    )
    return KitError(f"{expected} in {source}", found, do)


def read_columns(path: Path, columns: Mapping[str, str], optional: Mapping[str, str]) -> tuple[Cells, pd.DataFrame]:
    """The cells of a table, and its columns under kit's names; an optional one that is missing is empty.

    Other columns are ignored. Raises TableError if a needed column is missing.
    """
    cells = read_cells(path, FIX)
    if not set(columns) <= set(cells.header):
        header = f"the columns {','.join(columns)}"
        raise TableError(path, [Fault(path, cells.header_line, ",".join(cells.header), header)], FIX)
    present = dict(columns) | {name: ours for name, ours in optional.items() if name in cells.header}
    raw = cells.table[[LINE, *present]].rename(columns=present)
    return cells, raw.assign(**{ours: "" for name, ours in optional.items() if name not in cells.header})


def boxes_of(
    cells: Cells, raw: pd.DataFrame, sides: Sequence[str] = CORNERS
) -> tuple[pd.DataFrame, pd.DataFrame, list[Fault]]:
    """The rows with a box (ROW_COLUMNS), the rows that say "no finding", and the faults of the others.

    ``raw`` has image, label and reader, and the four ``sides`` as text: corners, or x_min, y_min, width, height.
    """
    unknown = raw.assign(width_px=0, height_px=0)  # the pictures' sizes: their headers are read later
    empty = stands_for_no_finding(raw["label"], raw[list(sides)], unknown)
    bare = raw[~empty & has_no_corners(raw[list(sides)])]
    rest = raw.drop(index=[*raw.index[empty], *bare.index])
    rows, faults = parse_numbers(cells, rest, ("image", "label", "reader"), sides)
    if "width" in sides:
        rows = rows.assign(x_max=rows["x_min"] + rows["width"], y_max=rows["y_min"] + rows["height"])
    if len(bare):
        faults.append(
            Fault(cells.path, int(bare[LINE].iloc[0]),
                  f"{counted_names(bare['image'])} with a finding and no corners",
                  f"four corners, or the label {_NO_FINDING}", FIX)
        )  # fmt: skip
    rows = rows.assign(file=pd.Series([cells.path] * len(rows), index=rows.index, dtype=object))
    return rows[list(ROW_COLUMNS)], raw[empty], faults


def rows_table(rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    """Rows in the order of ROW_COLUMNS as a table; there may be none."""
    table = pd.DataFrame(rows, columns=list(ROW_COLUMNS))
    return table.astype(dict.fromkeys(CORNERS, "float64") | {LINE: "int64"})


def named_rows(rows: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """Pictures that rows name, with their lines, for ``missing_pictures``."""
    return pd.DataFrame(rows, columns=["image", LINE])


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several files in one table."""
    return pd.concat([table for table in tables if len(table)] or [rows_table([])], ignore_index=True)


def missing_pictures(path: Path, named: pd.DataFrame, pictures: Collection[str], folder: Path) -> list[Fault]:
    """One fault for all rows (image, line) whose picture is not there."""
    rows = named[~named["image"].isin(list(pictures))].drop_duplicates("image")
    if rows.empty:
        return []
    return [
        Fault(path, int(rows[LINE].min()), counted_names(rows["image"]), f"a picture of that name in {folder}",
              "put these pictures there, or leave their rows out of a copy of the table")
    ]  # fmt: skip


def is_four_numbers(value: object) -> bool:
    """Whether a JSON value is a list of four finite numbers of less than a thousand million."""
    return (
        isinstance(value, list)
        and len(value) == len(CORNERS)
        and all(type(number) in (int, float) and abs(number) < _MOST for number in value)
    )


def counted_names(names: Iterable[str]) -> str:
    """A name, or how many there are and the first three, without the part before them."""
    bare = list(map(bare_name, dict.fromkeys(names)))
    return bare[0] if len(bare) == 1 else f"{len(bare)} pictures: {first_few(bare, 3)}"


def bare_name(key: str) -> str:
    """A picture's name without the part before it."""
    return key.partition("/")[2] or key


def left_out(pictures: Mapping[str, Picture], named: Collection[str], why: str) -> list[str]:
    """A note on the pictures that no row names; none if all are named."""
    others = [key for key in pictures if key not in set(named)]
    return [f"left out, {why}: {counted_names(others)}"] if others else []


def chosen(pictures: Mapping[str, Picture], names: Iterable[str]) -> dict[str, Picture]:
    """The pictures that are named, in the order of their names."""
    wanted = set(names)
    return {key: picture for key, picture in sorted(pictures.items()) if key in wanted}


def with_patients(pictures: Mapping[str, Picture], patient_of: Mapping[str, str]) -> dict[str, Picture]:
    """The pictures with the patients that the set's tables name."""
    return {
        key: dataclasses.replace(picture, patient=patient_of.get(key, picture.patient))
        for key, picture in pictures.items()
    }
