"""Files with one thing wrong: each reader of the kit is fed with all of them, drawn the same way every time.

A mutant says what was done to the file and, where one cell or value was changed, where and to what.
"""

from __future__ import annotations

import codecs
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """A file's bytes after one change. ``line`` and ``value`` say which cell was changed and to what."""

    name: str
    data: bytes
    line: int | None = None
    value: str = ""


CELLS = (
    "", " ", "  7", "7 ", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e308", "-1e308",
    "1e-400", "-1", "-0", "0", "0.0", "+5", "5.", ".5", "1e1", "1E+1", "1e", "1.2.3", "1,5", "1_0", "0x10", "0b1",
    "10f", "1 0", "٣", "１", "½", "9" * 16, "9" * 400, "None", "NULL", "NA", "true", "=1+1", "#REF!",
    "<script>alert(1)</script>", "a\"b", "a,b", "a\nb", "a\r\nb", "a\tb", "a\x07b", "\u202eabc", "\u200b", "\ufeff",
    "e\u0301", "x" * 5000, "../a.png", "..", ".", "/etc/passwd", "..\\a.png", "C:\\a.png", "a.png/", "$(id)",
    "`id`", "%s", "{0}", "a.PNG", "-", "'7'", "7;8", "7|8",
)  # fmt: skip


def table_mutants(data: bytes, seed: int, cells: int, flips: int) -> Iterator[Mutant]:
    """One change each to a CSV file: its bytes, its lines, its header, or ``cells`` of its cells."""
    yield from _byte_mutants(data, seed, flips)
    yield from _line_mutants(data.decode().splitlines())
    yield from _header_mutants(data.decode().splitlines())
    yield from _cell_mutants(data.decode().splitlines(), seed, cells)


JSON_VALUES = (
    "null", "true", "false", "0", "-1", "1", "2", "1.5", "-0.0", "1e308", "1e999", "NaN", "Infinity", "-Infinity",
    "9" * 30, "9" * 5000, '""', '"x"', '"0"', '" "', '"../x"', '"\\u0000"', '"\\ud800"', '"\\n"',
    '"<script>"', "[]", "{}", "[[]]", "[1]", '["x"]', '["x", "x"]', '[null]', '{"x": 1}', '[{"x": []}]',
    '{"x": {"x": {"x": 1}}}', '"' + "x" * 5000 + '"', "[" * 9 + "]" * 9,
)  # fmt: skip
_HOLE = "a hole that a value goes into"


def json_mutants(value: Any, seed: int, values: int, flips: int) -> Iterator[Mutant]:
    """One change each to a JSON file: its bytes, a value anywhere in it, a key gone, added or doubled."""
    data = json.dumps(value, indent=2).encode()
    yield from _byte_mutants(data, seed, flips)
    yield Mutant("a depth of 100,000", b"[" * 100_000 + b"]" * 100_000)
    yield Mutant("a depth of 100,000 in a value", b'{"x": ' * 100_000 + b"1" + b"}" * 100_000)
    places = list(_places(value))
    drawn = random.Random(seed)
    every = [(place, text) for place in places for text in JSON_VALUES]
    for place, text in drawn.sample(every, min(values, len(every))):
        holed = json.dumps(_replaced(value, place, _HOLE), indent=2)
        yield Mutant(
            f"{'.'.join(map(str, place)) or 'all'} = {text[:40]}", holed.replace(json.dumps(_HOLE), text).encode()
        )
    for place in places:
        if not place or not isinstance(place[-1], str):
            continue
        name = ".".join(map(str, place))
        yield Mutant(f"{name} gone", json.dumps(_without(value, place)).encode())
        yield Mutant(f"{name} renamed", json.dumps(_renamed(value, place, _HOLE)).encode())
        twice = json.dumps(_renamed(value, place, _HOLE, keep=True))
        yield Mutant(f"{name} twice", twice.replace(json.dumps(_HOLE), json.dumps(place[-1])).encode())


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")
    }


def _byte_mutants(data: bytes, seed: int, flips: int) -> Iterator[Mutant]:
    text = data.decode()
    yield Mutant("unchanged", data)
    yield Mutant("nothing", b"")
    yield Mutant("blanks", b" \n\t\r\n")
    yield Mutant("zeros", bytes(len(data)))
    yield Mutant("one NUL", data[: len(data) // 2] + b"\0" + data[len(data) // 2 :])
    yield Mutant("BOM", codecs.BOM_UTF8 + data)
    yield Mutant("two BOMs", codecs.BOM_UTF8 * 2 + data)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037"):
        yield Mutant(encoding, text.encode(encoding))
    yield Mutant("latin-1", text.replace("a", "ä").encode("latin-1"))
    yield Mutant("CRLF", data.replace(b"\n", b"\r\n"))
    yield Mutant("CR", data.replace(b"\n", b"\r"))
    yield Mutant("no end of line", data.rstrip(b"\n"))
    yield Mutant("empty lines", data.replace(b"\n", b"\n\n"))
    yield Mutant("twice", data + data)
    yield Mutant("gzip", gzip.compress(data, mtime=0))
    yield Mutant("PNG", b"\x89PNG\r\n\x1a\n" + data)
    yield Mutant("web page", b"<!doctype html><html><body>Sign in</body></html>")
    yield Mutant(
        "pickle", b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    )
    drawn = random.Random(seed)
    for cut in sorted(drawn.sample(range(1, len(data)), min(flips, len(data) - 1))):
        yield Mutant(f"cut after {cut} bytes", data[:cut])
    for _ in range(flips):
        place, byte = drawn.randrange(len(data)), drawn.randrange(256)
        yield Mutant(f"byte {place} = {byte:#04x}", data[:place] + bytes([byte]) + data[place + 1 :])


def _line_mutants(lines: Sequence[str]) -> Iterator[Mutant]:
    for number in range(len(lines)):
        yield _of_lines(f"line {number + 1} gone", [*lines[:number], *lines[number + 1 :]])
        yield _of_lines(f"line {number + 1} twice", [*lines[:number], lines[number], *lines[number:]])
        yield _of_lines(
            f"line {number + 1} with one cell more", [*lines[:number], lines[number] + ",7", *lines[number + 1 :]]
        )
        fewer = lines[number].rpartition(",")[0]
        yield _of_lines(f"line {number + 1} with one cell fewer", [*lines[:number], fewer, *lines[number + 1 :]])
    yield _of_lines("upside down", [lines[0], *reversed(lines[1:])])
    for delimiter in (";", "\t", "|", " ", ", ", ",,"):
        yield _of_lines(f"delimiter {delimiter!r}", [line.replace(",", delimiter) for line in lines])
    yield _of_lines("all quoted", [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines])
    yield _of_lines("a quote left open", [*lines[:2], '"' + lines[2], *lines[3:]])
    yield _of_lines("a comment", ["# exported", *lines])
    yield _of_lines("decimal commas", [line.replace(".5", ",5") for line in lines])


def _header_mutants(lines: Sequence[str]) -> Iterator[Mutant]:
    names = lines[0].split(",")
    for number, name in enumerate(names):
        for label, new in (
            ("empty", ""), ("upper", name.upper()), ("lower", name.lower()), ("blank", f" {name}"),
            ("other", "other"), ("first again", names[0]), ("last again", names[-1]), ("quoted", f'"{name}"'),
        ):  # fmt: skip
            header = ",".join([*names[:number], new, *names[number + 1 :]])
            yield _of_lines(f"header {name} {label}", [header, *lines[1:]])
    yield _of_lines("header reversed", [",".join(reversed(line.split(","))) for line in lines])
    yield _of_lines("header twice", [lines[0], *lines])
    yield _of_lines(
        "an own column first", ["note," + lines[0], *(f"n{i},{line}" for i, line in enumerate(lines[1:]))]
    )
    yield _of_lines(
        "an unnamed column first", ["," + lines[0], *(f"{i},{line}" for i, line in enumerate(lines[1:]))]
    )


def _cell_mutants(lines: Sequence[str], seed: int, count: int) -> Iterator[Mutant]:
    drawn = random.Random(seed)
    columns = lines[0].split(",")
    places = [(row, column) for row in range(1, len(lines)) for column in range(len(columns))]
    for turn in range(count):
        value = CELLS[turn % len(CELLS)]
        row, column = drawn.choice(places)
        cells = lines[row].split(",")
        cells[column] = _quoted(value)
        changed = [*lines[:row], ",".join(cells), *lines[row + 1 :]]
        yield _of_lines(f"line {row + 1}, {columns[column]} = {value[:40]!r}", changed, row + 1, value)


def _of_lines(name: str, lines: Sequence[str], line: int | None = None, value: str = "") -> Mutant:
    return Mutant(name, ("\n".join(lines) + "\n").encode(), line, value)


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if set(value) & set(',"\r\n') else value


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _places(part, (*above, key))
    elif isinstance(value, list):
        for number, part in enumerate(value[:2]):
            yield from _places(part, (*above, number))


def _replaced(value: Any, place: Sequence[Any], new: Any) -> Any:
    if not place:
        return new
    if isinstance(value, dict):
        return {key: _replaced(part, place[1:], new) if key == place[0] else part for key, part in value.items()}
    return [_replaced(part, place[1:], new) if i == place[0] else part for i, part in enumerate(value)]


def _without(value: Any, place: Sequence[Any]) -> Any:
    if isinstance(value, list):
        return [_without(part, place[1:]) if i == place[0] else part for i, part in enumerate(value)]
    if len(place) == 1:
        return {key: part for key, part in value.items() if key != place[0]}
    return {key: _without(part, place[1:]) if key == place[0] else part for key, part in value.items()}


def _renamed(value: Any, place: Sequence[Any], new: str, keep: bool = False) -> Any:
    if isinstance(value, list):
        return [_renamed(part, place[1:], new, keep) if i == place[0] else part for i, part in enumerate(value)]
    if len(place) > 1:
        return {
            key: _renamed(part, place[1:], new, keep) if key == place[0] else part for key, part in value.items()
        }
    kept = dict(value) if keep else _without(value, place)
    return {**kept, new: value[place[0]]}
