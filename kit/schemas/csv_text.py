"""CSV files as text cells that know their line, and the faults that were found in them.

Parsing is ours, not pandas': a bad cell must become a message with its line, and never a missing value.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.core.errors import KitError, reason

LINE = "line"
_SHOWN_FAULTS = 50
_SHOWN_LETTERS = 160
# Not \d, which takes the digits of every script.
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"-?[0-9]{1,15}")  # what float64 holds exactly
_MARK = "\ufeff"
_UTF8 = "UTF-8 text (save the table as CSV UTF-8)"


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
    """A CSV file as text: unique column names, a column ``line``, and a fault for every row that is not in it."""

    path: Path
    header: tuple[str, ...]
    header_line: int
    table: pd.DataFrame
    faults: tuple[Fault, ...]


def read_cells(path: Path, do: str, byte_order_mark: bool = True) -> Cells:
    """Read a comma-separated UTF-8 file, CRLF or LF, empty lines left out. Header cells may be empty.

    Raises TableError where it cannot be read as such a table at all: missing, empty, binary, another
    encoding, a column named twice. ``do`` tells the user what to do about any fault.
    """
    physical = list(io.StringIO(_text(path, do, byte_order_mark), newline=""))
    reader = csv.reader(physical, strict=True)
    header: list[str] = []
    header_line = 0
    rows: list[list[str]] = []
    lines: list[int] = []
    faults: list[Fault] = []
    while reader.line_num < len(physical):
        line = reader.line_num + 1
        try:
            row = next(reader)
        except csv.Error as error:
            # The reader goes on with the next line, and so do we: the other faults are wanted too.
            faults.append(
                Fault(path, line, _cut(physical[line - 1]), f"a well-formed CSV row, its quotes closed ({error})")
            )
            if not header:
                raise TableError(path, faults, do) from error
            continue
        if not row:
            continue
        if not header:
            header, header_line = row, line
        elif len(row) != len(header):
            count = f"{len(header)} cells as in the header, not {len(row)}"
            faults.append(Fault(path, line, _cut(physical[line - 1]), count))
        else:
            rows.append(row)
            lines.append(line)
    named = [name for name in header if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise TableError(path, [Fault(path, header_line, ",".join(twice), "each column once")], do)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header) if name}
    table = pd.DataFrame(columns, index=pd.RangeIndex(len(rows)), dtype=object)
    return Cells(path, tuple(header), header_line, table.assign(**{LINE: np.array(lines, np.int64)}), tuple(faults))


def to_numbers(cells: pd.Series, whole: bool = False) -> pd.Series:
    """Cells as float64; NaN where one is no plain decimal number (blanks, underscores, nan, inf) or too large."""
    matches = (_INTEGER if whole else _FLOAT).fullmatch
    values = np.array([float(cell) if matches(cell) else np.nan for cell in cells], np.float64)
    return pd.Series(np.where(np.isfinite(values), values, np.nan), index=cells.index)


def _text(path: Path, do: str, byte_order_mark: bool) -> str:
    def refuse(value: str, expected: str, line: int | None = None) -> TableError:
        return TableError(path, [Fault(path, line, value, expected)], do)

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise refuse("no such file", "a CSV file") from None
    except OSError as error:
        raise refuse(reason(error), "a readable CSV file") from error
    if not data.removeprefix(codecs.BOM_UTF8).strip():
        raise refuse("an empty file", "a header and rows")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise refuse("UTF-16 text", _UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(f"byte {data[error.start]:#04x}", _UTF8, data.count(b"\n", 0, error.start) + 1) from error
    if "\0" in text:
        raise refuse("a NUL byte", _UTF8, text.count("\n", 0, text.index("\0")) + 1)
    if text.startswith(_MARK) and not byte_order_mark:
        raise refuse(_MARK, "no byte order mark (save the table as plain UTF-8)", 1)
    return text.removeprefix(_MARK)


def _cut(line: str) -> str:
    return line.rstrip("\r\n")[: _SHOWN_LETTERS + 1]
