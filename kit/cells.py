"""CSV files as text cells that know their line, and the faults that were found in them.

Parsing is ours, not pandas': a bad cell must become a message with its line, and never a missing value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.errors import KitError

LINE = "line"
_SHOWN_FAULTS = 50
_SHOWN_LETTERS = 80
_LARGEST_FIELD_BYTES = 1 << 20
_FLOAT = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_INTEGER = r"-?\d{1,15}"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a file. ``line`` counts from 1; None means the file as a whole."""

    file: Path
    line: int | None
    value: str
    expected: str

    def __str__(self) -> str:
        place = self.file.name if self.line is None else f"{self.file.name}:{self.line}"
        value = self.value if len(self.value) <= _SHOWN_LETTERS else self.value[:_SHOWN_LETTERS] + "..."
        return f"{place}: found {value!r}, expected {self.expected}"


class TableError(KitError):
    """All faults of a table together; ``faults`` holds every one, the text the first fifty."""

    def __init__(self, path: Path, faults: Sequence[Fault], do: str) -> None:
        self.faults = tuple(faults)
        shown = [f"\n  {fault}" for fault in self.faults[:_SHOWN_FAULTS]]
        rest = len(self.faults) - len(shown)
        more = f"\n  ... and {rest} more" if rest else ""
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__(f"{path} without faults", count + "".join(shown) + more, do)


@dataclass(frozen=True)
class Cells:
    """A CSV file as text: unique column names, a column ``line``, and the rows that do not fit the header."""

    path: Path
    header: tuple[str, ...]
    table: pd.DataFrame
    faults: tuple[Fault, ...]


def read_cells(path: Path, do: str, byte_order_mark: bool = True) -> Cells:
    """Read a comma-separated UTF-8 file, CRLF or LF, empty lines left out. Header cells may be empty.

    Raises TableError where it cannot be read as such a table at all: missing, empty, binary, another
    encoding or delimiter, a column named twice. ``do`` tells the user what to do about any fault.
    """
    text = _text(path, do, byte_order_mark)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    csv.field_size_limit(_LARGEST_FIELD_BYTES)
    header: tuple[str, ...] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    faults: list[Fault] = []
    before = 0
    try:
        for row in reader:
            line, before = before + 1, reader.line_num
            if not row:
                continue
            if header is None:
                header = tuple(row)
            elif len(row) != len(header):
                faults.append(Fault(path, line, ",".join(row), f"{len(header)} cells, not {len(row)}"))
            else:
                rows.append(row)
                lines.append(line)
    except csv.Error as error:
        faults.append(Fault(path, before + 1, str(error), "a well-formed CSV line"))
        raise TableError(path, faults, do) from error
    if header is None:
        raise TableError(path, [Fault(path, None, "", "a header and rows")], do)
    named = [name for name in header if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise TableError(path, [Fault(path, 1, ",".join(twice), "each column once")], do)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header) if name}
    table = pd.DataFrame(columns, columns=named, dtype=object)
    return Cells(path, header, table.assign(**{LINE: np.array(lines, dtype=np.int64)}), tuple(faults))


def numbers(cells: pd.Series, whole: bool = False) -> pd.Series:
    """Cells that are all ``good`` as float64, or as int64 where they are ``whole``."""
    return cells.astype(np.float64).astype(np.int64) if whole else cells.astype(np.float64)


def good(cells: pd.Series, whole: bool = False) -> pd.Series:
    """Which cells are a plain decimal number (no blanks, underscores, nan or inf) that float64 can hold."""
    fits = cells.str.fullmatch(_INTEGER if whole else _FLOAT)
    values = cells.where(fits, "0").astype(np.float64)
    return fits & np.isfinite(values)


def _text(path: Path, do: str, byte_order_mark: bool) -> str:
    def refuse(value: str, expected: str) -> TableError:
        return TableError(path, [Fault(path, None, value, expected)], do)

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise refuse("no such file", "a CSV file") from None
    except OSError as error:
        raise refuse(error.strerror or str(error), "a readable CSV file") from error
    if not data.strip():
        raise refuse("an empty file", "a header and rows")
    mark = "\ufeff"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TableError(
            path, [Fault(path, line, repr(data[error.start : error.end]), "UTF-8 text")], do
        ) from error
    if "\0" in text:
        raise refuse("a NUL byte", "UTF-8 text")
    if text.startswith(mark) and not byte_order_mark:
        raise TableError(path, [Fault(path, 1, mark, "no byte order mark")], do)
    return text.removeprefix(mark)
