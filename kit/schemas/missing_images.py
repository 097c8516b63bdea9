"""Why a table's image_ids are not the names of the images: each cause is one fault, with its own advice."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.schemas.csv_text import LINE, Fault
from kit.schemas.image_headers import IMAGE_SUFFIXES

_DICOM = (".dcm", ".dicom")


@dataclass(frozen=True)
class _Cause:
    """A way in which an image_id differs from a name: what is expected, and what to do."""

    expected: str
    do: str
    names: dict[str, str]  # the form that is compared -> the file's name
    form: Callable[[str], str] = str


def named_otherwise(
    path: Path, table: pd.DataFrame, names: Iterable[str], folder: Path
) -> tuple[list[Fault], pd.DataFrame]:
    """A fault for each cause for which image_ids of the table are missing, with the first line and the count.

    Causes: a path before the name, no extension or another one, upper and lower case, another Unicode form (NFC and
    NFD), lost zeros, DICOM files, images one folder deeper.

    Args:
        path: the table's file.
        table: its rows: image_id and line; all of them name no image.
        names: the images that are there.
        folder: theirs.

    Returns:
        The faults, and the rows of the other image_ids.
    """
    if table.empty:
        return [], table
    faults = []
    rest = table
    for cause in _causes(list(names), folder):
        found = rest["image_id"].map(lambda name, cause=cause: cause.names.get(cause.form(name)))
        rows = rest[found.notna()]
        if len(rows):
            image_id, there = rows["image_id"].iloc[0], found[found.notna()].iloc[0]
            more = f" (and {len(rows) - 1} rows more)" if len(rows) > 1 else ""
            expected = cause.expected.format(there)
            faults.append(Fault(path, int(rows[LINE].iloc[0]), f"{image_id}{more}", expected, cause.do))
            rest = rest[found.isna()]
    return faults, rest


def _causes(names: list[str], folder: Path) -> list[_Cause]:
    dicom, deeper = _other_files(folder)
    rename = "write each image_id as its file is named, or rename the files"
    plain = "leave out the folders before the names"
    return [
        _Cause("a file name without a path", plain, {n: n for n in names}, _last),
        _Cause("the file's name in its Unicode form (NFC or NFD), {!a}", rename, {_nfc(n): n for n in names}, _nfc),
        _Cause("the file's name in its upper and lower case, {}", rename, {_folded(n): n for n in names}, _folded),
        _Cause("the file's name with its extension, {}", rename, {_folded(_stem(n)): n for n in names}, _folded),
        _Cause("the file's name with its own extension, {}", rename,
               {_folded(_stem(n)): n for n in names}, _folded_stem),
        _Cause("the file's name with its zeros, {}", rename,
               {_folded_stem(n).lstrip("0"): n for n in names}, lambda name: _folded_stem(name).lstrip("0")),
        _Cause(f"a PNG or JPEG image, not {{}} in {folder.name}/",
               "convert the DICOM files to PNG or JPEG and name these in the table", dicom, _folded_stem),
        _Cause(f"an image directly in {folder.name}/, not {{}}", f"move the images up into {folder.name}/",
               deeper, lambda name: _folded_stem(_last(name))),
    ]  # fmt: skip


def _other_files(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """DICOM files of the folder, and images one folder deeper, by the folded stem of their names."""
    dicom: dict[str, str] = {}
    deeper: dict[str, str] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return dicom, deeper
    for entry in entries:
        if entry.is_dir():
            deeper |= {
                _folded_stem(path.name): f"{folder.name}/{entry.name}/{path.name}"
                for path in sorted(Path(entry.path).glob("*"))
                if path.name.lower().endswith(IMAGE_SUFFIXES)
            }
        elif entry.name.lower().endswith(_DICOM):
            dicom[_folded(_stem(entry.name))] = entry.name
    return dicom, deeper


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _nfc(text).casefold()


def _folded_stem(name: str) -> str:
    return _folded(_stem(name))


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _stem(name: str) -> str:
    """The name without its extension, if it has that of a picture."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in (*IMAGE_SUFFIXES, *_DICOM) else name
