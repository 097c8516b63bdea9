"""CSV files as text cells with their line numbers, and the faults in them.

kit parses them itself: pandas would turn a bad cell into a missing value instead of a message with its line.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.core.errors import KitError, reason
from kit.core.text_files import decoded

LINE = "line"
_SHOWN_FAULTS = 50
_SHOWN_LETTERS = 160
_SHOWN_LINES = 5
_ALONE = 5  # as many faults of one cause have a line each; more share a line
_EARLIER = re.compile(r" \(line [0-9]+ does\)$")  # of a repeated row: it differs in each
_ROW_WORDS = {".json": "entry", ".parquet": "row"}  # a position in these is no line of text
# Not \d, which matches the digits of every script.
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"-?[0-9]{1,15}")  # what float64 holds exactly
_PAGE = ("<!doctype html", "<html")
_LONE_CR = re.compile(rb"\r(?!\n)")
_UTF8 = "UTF-8 text (save the table as CSV UTF-8)"


@dataclass(frozen=True)
class Fault:
    """One fault of a file. ``line`` counts from 1 (rows or entries in parquet and JSON); None: the whole file.

    ``do`` is advice of its own, if the table's does not fit.
    """

    file: Path
    line: int | None
    value: str
    expected: str
    do: str = ""

    def __str__(self) -> str:
        return self.text()

    def text(self, others: Sequence[Fault] = ()) -> str:
        """The fault in a line, with the count and the first lines of ``others`` of the same cause."""
        word = _ROW_WORDS.get(self.file.suffix.lower())
        place = "" if self.line is None else f", {word} {self.line}" if word else f":{self.line}"
        position = self.file.name + place
        value = self.value if len(self.value) <= _SHOWN_LETTERS else self.value[:_SHOWN_LETTERS] + "..."
        lines = ", ".join(str(other.line) for other in others[:_SHOWN_LINES])
        dots = ", ..." if len(others) > _SHOWN_LINES else ""
        more = f" and {len(others)} more alike ({word or 'line'} {lines}{dots})" if others else ""
        return f"{position}: found {value!r}{more}, expected {self.expected}"


class TableError(KitError):
    """All faults of a table: ``faults`` holds every one, the message 50 lines; many of one cause share one."""

    def __init__(self, path: Path, faults: Sequence[Fault], do: str) -> None:
        self.faults = tuple(faults)
        causes = _causes(self.faults)
        shown = [f"\n  {first.text(others)}" for first, *others in causes[:_SHOWN_FAULTS]]
        rest = sum(map(len, causes[_SHOWN_FAULTS:]))
        more = f"\n  ... and {rest} more" if rest else ""
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__(f"{path} without faults", count + "".join(shown) + more, do)


def _causes(faults: Sequence[Fault]) -> list[list[Fault]]:
    """The faults as groups, in the order of their first ones; of one cause more than ``_ALONE`` are one group."""
    alike: dict[object, list[Fault]] = {}
    for fault in faults:
        cause = (fault.file, _EARLIER.sub("", fault.expected), fault.do, fault.line is None)
        alike.setdefault(cause, []).append(fault)
    groups = [
        group
        for same in alike.values()
        for group in ([same] if len(same) > _ALONE and same[0].line is not None else [[fault] for fault in same])
    ]
    order = {id(fault): number for number, fault in enumerate(faults)}
    return sorted(groups, key=lambda group: order[id(group[0])])


@dataclass(frozen=True)
class Cells:
    """A CSV file as text: a table with unique columns and a column ``line``, and a fault for each row left out."""

    path: Path
    header: tuple[str, ...]
    header_line: int | None  # None of a file without such a line
    table: pd.DataFrame
    faults: tuple[Fault, ...]


def read_cells(path: Path, do: str, marks: bool = True) -> Cells:
    """Read a comma-separated file in UTF-8 or UTF-16; empty lines are left out, header cells may be empty.

    Raises TableError with the advice ``do`` if the file is missing, empty, binary, in another encoding, or has a
    repeated column; and, without ``marks``, if it has a byte order mark, is UTF-16, or has lines that end with a
    carriage return alone: other programs may read one line.
    """
    physical = list(io.StringIO(_text(path, do, marks), newline=""))
    reader = csv.reader(physical, strict=True)
    header: list[str] = []
    header_line = None
    rows: list[list[str]] = []
    lines: list[int] = []
    faults: list[Fault] = []
    while reader.line_num < len(physical):
        line = reader.line_num + 1
        try:
            row = next(reader)
        except csv.Error as error:
            # The reader continues with the next line, so the other faults are reported too.
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
    """Cells as float64; NaN for one that is no plain decimal number (blank, underscore, nan, inf) or too large."""
    matches = (_INTEGER if whole else _FLOAT).fullmatch
    values = np.array([float(cell) if matches(cell) else np.nan for cell in cells], np.float64)
    return pd.Series(np.where(np.isfinite(values), values, np.nan), index=cells.index)


def _text(path: Path, do: str, marks: bool) -> str:
    def refuse(value: str, expected: str, line: int | None = None) -> TableError:
        return TableError(path, [Fault(path, line, value, expected)], do)

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise refuse("no such file", "a CSV file") from None
    except OSError as error:
        raise refuse(reason(error), "a readable CSV file") from error
    try:
        text = decoded(data)
    except UnicodeDecodeError as error:
        content = bytes(error.object)
        line = content.count(b"\n", 0, error.start) + 1
        raise refuse(f"byte {content[error.start]:#04x}", _UTF8, line) from error
    if text.lstrip().lower().startswith(_PAGE):
        raise refuse("an HTML page", "a CSV file; a page is what a site sends without a log-in", 1)
    if not text.strip():
        raise refuse("an empty file", "a header and rows")
    if "\0" in text:
        raise refuse("a NUL byte", _UTF8, text.count("\n", 0, text.index("\0")) + 1)
    if not marks and not data.startswith(codecs.BOM_UTF8) and b"\0" in data:
        raise refuse("UTF-16 text", _UTF8)
    if not marks and data.startswith(codecs.BOM_UTF8):
        raise refuse("\ufeff", "no byte order mark (save the table as plain UTF-8)", 1)
    if not marks and (alone := _LONE_CR.search(data)):
        line = 1 + data.count(b"\n", 0, alone.start())
        found = Fault(path, line, "a carriage return alone", "lines that end with \\n or \\r\\n")
        raise TableError(path, [found], f"tr '\\r' '\\n' < {shlex.quote(str(path))} > NEW.csv, and take NEW.csv")
    return text


def _cut(line: str) -> str:
    return line.rstrip("\r\n")[: _SHOWN_LETTERS + 1]
