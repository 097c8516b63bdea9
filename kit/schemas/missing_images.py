"""Why a table's image_ids are not the names of the images: each cause is one fault, with its own advice."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kit.schemas.csv_text import LINE, Fault
from kit.schemas.file_names import IMAGE_SUFFIXES, is_companion

_OTHER_FORMATS = (".dcm", ".dicom", ".bmp", ".gif", ".jp2", ".tif", ".tiff", ".webp")


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
    NFD), lost zeros, DICOM files and other formats, images in a deeper folder.

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


def unread_images(folder: Path) -> list[str]:
    """Files of a folder of images that are not read: images in deeper folders, and pictures in other formats.

    Their paths below the folder's parent, sorted; none if there is no such folder.
    """
    return sorted([*_deeper(folder), *_other_formats(folder)])


def _causes(names: list[str], folder: Path) -> list[_Cause]:
    others = {_folded_stem(_last(path)): path for path in _other_formats(folder)}
    deeper = {_folded_stem(_last(path)): path for path in _deeper(folder)}
    rename = "write each image_id as its file is named, or rename the files"
    plain = "leave out the folders before the names"
    stems = {_folded_stem(name): name for name in names}
    return [
        _Cause("a file name without a path", plain, {name: name for name in names}, _last),
        _Cause("the file's name in its Unicode form (NFC or NFD), {!a}", rename, {_nfc(n): n for n in names}, _nfc),
        _Cause("the file's name in its upper and lower case, {}", rename, {_folded(n): n for n in names}, _folded),
        _Cause("the file's name with its extension, {}", rename, stems, _folded),
        _Cause("the file's name with its own extension, {}", rename, stems, _folded_stem),
        _Cause("the file's name with its zeros, {}", rename,
               {stem.lstrip("0"): name for stem, name in stems.items()}, lambda n: _folded_stem(n).lstrip("0")),
        _Cause("a PNG or JPEG image, not {}",
               "convert the files of other formats to PNG or JPEG, and name these in the table",
               others, _folded_stem),
        _Cause(f"an image directly in {folder.name}/, not {{}}", f"move the images up into {folder.name}/",
               deeper, lambda name: _folded_stem(_last(name))),
    ]  # fmt: skip


def _deeper(folder: Path) -> list[str]:
    """The images in folders of the folder, however deep."""
    return [path for path in _files(folder, IMAGE_SUFFIXES) if path.count("/") > 1]


def _other_formats(folder: Path) -> list[str]:
    """The pictures of the folder and of those in it that are neither PNG nor JPEG."""
    return _files(folder, _OTHER_FORMATS)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files of a folder and of those in it with one of the suffixes, by their paths below its parent."""
    return [
        (Path(parent) / name).relative_to(folder.parent).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(suffixes)
        and not is_companion((Path(parent) / name).relative_to(folder).as_posix())
    ]


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
    return stem if dot and f".{extension.lower()}" in (*IMAGE_SUFFIXES, *_OTHER_FORMATS) else name
