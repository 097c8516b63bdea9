"""Unpack an untrusted zip archive: no entry leaves the folder, is a link, or fills the disk.

All entries are checked before the first byte is written; their checksums are compared during unpacking.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from kit.core.errors import KitError, reason
from kit.core.files import explaining_write_errors, make_folder
from kit.core.progress import Track, silent
from kit.schemas.file_names import COMPETITION_FILES

_ENCRYPTED, _NEEDS_PASSWORD = 0x1, "is encrypted"
_BLOCK_BYTES = 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:[/\\]|[A-Za-z]:$")
# Raised by zipfile and its decompressors for broken bytes; a write that the system refuses is a KitError.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)


class Corrupt(KitError):
    """Bytes that were damaged in transfer: downloading them again may help."""


def unpack(archive: Path, folder: Path, most_bytes: int, track: Track = silent) -> dict[str, int]:
    """Unpack a zip archive into a new ``folder``; sizes of its files in bytes by their paths in it, with slashes.

    Raises Corrupt if the archive is broken or a checksum differs. Raises KitError, before anything is written, if
    an entry would leave the folder, is a link, is encrypted or appears twice, or if all entries together are
    larger than ``most_bytes``.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _require_safe(archive, opened.infolist(), most_bytes)
            make_folder(folder)
            for entry in track(entries, "unpack", len(entries)):
                goal = folder / _path(entry)
                make_folder(goal.parent)
                with opened.open(entry) as source, explaining_write_errors(goal), goal.open("xb") as file:
                    shutil.copyfileobj(source, file, _BLOCK_BYTES)
                if goal.stat().st_size != entry.file_size:  # the checksum is right, the declared size is not
                    raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than its declared size")
    except _BROKEN as error:
        raise Corrupt(
            f"{archive.name} to be a whole zip archive", reason(error), "the same command fetches it anew"
        ) from error
    return {_path(entry): entry.file_size for entry in entries}


def _path(entry: zipfile.ZipInfo) -> str:
    """An entry's path. Some programs of Windows separate folders by backslashes, against the format."""
    return entry.filename.replace("\\", "/")


def _require_safe(archive: Path, entries: Iterable[zipfile.ZipInfo], most_bytes: int) -> None:
    """Raise KitError with the number of faults and the first of them."""
    faults: list[str] = []
    names: set[str] = set()
    total = 0
    for entry in entries:
        total += entry.file_size
        faults += [f"{entry.filename!r} {fault}" for fault in _faults(entry)]
        name = _path(entry).rstrip("/").lower()  # some file systems ignore case
        if name in names and not entry.is_dir():
            faults.append(f"{entry.filename!r} is there twice")
        names.add(name)
    harmful = len(faults)
    if total > most_bytes:
        faults.append(f"it would unpack to {total / 2**30:.1f} GiB, more than {most_bytes / 2**30:.1f}")
    if faults:
        password = " with its password" if any(fault.endswith(_NEEDS_PASSWORD) for fault in faults) else ""
        do = f"unpack {archive} by hand{password}, put {', '.join(COMPETITION_FILES)} into data/, and call again"
        if not harmful:
            do = "raise kaggle.unpacked_max_gib (--set) if the archive is only large"
        raise KitError(
            f"{archive.name} to hold only files that stay in their folder, in a form that can be read",
            f"{len(faults)} fault(s), the first: {faults[0]}; nothing was unpacked", do,
        )  # fmt: skip


def _faults(entry: zipfile.ZipInfo) -> list[str]:
    """The faults of an entry's name and kind."""
    path = PurePosixPath(_path(entry))
    faults = []
    if path.is_absolute() or ".." in path.parts or not path.parts or _DRIVE.match(entry.filename):
        faults.append("would leave the folder")
    if os.name == "nt" and ":" in entry.filename:
        faults.append("has a colon, which Windows refuses in a name: unpack the archive on Linux or macOS")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        faults.append("is a link or another special file")
    if entry.flag_bits & _ENCRYPTED:
        faults.append(_NEEDS_PASSWORD)
    return faults
