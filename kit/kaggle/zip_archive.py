"""Unpacking a zip that came from outside: nothing leaves the folder, nothing is a link, nothing fills the disk.

Every entry is judged before the first byte is written; the checksums are compared while the bytes are.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from kit.core.errors import KitError
from kit.core.files import explaining_write_errors, make_folder
from kit.core.progress import Track, silent

_ENCRYPTED = 0x1
_BLOCK_BYTES = 1 << 20
# What zipfile and its decompressors raise for broken bytes; a refused write is a KitError by then.
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
    """Bytes that are not what was sent: fetching them anew may help."""


def unpack(archive: Path, folder: Path, most_bytes: int, track: Track = silent) -> dict[str, int]:
    """Unpack a zip into a new ``folder``; the sizes of its files in bytes, by their paths in it.

    Raises Corrupt where the archive is broken or a checksum differs, and KitError, before anything is written,
    where an entry would leave the folder, is a link, is encrypted or stands there twice, or where they come to
    more than ``most_bytes``.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _judge(archive, opened.infolist(), most_bytes)
            make_folder(folder)
            for entry in track(entries, "unpack", len(entries)):
                goal = folder / entry.filename
                make_folder(goal.parent)
                with opened.open(entry) as source, explaining_write_errors(goal), goal.open("xb") as file:
                    shutil.copyfileobj(source, file, _BLOCK_BYTES)
                if goal.stat().st_size != entry.file_size:  # its checksum holds, its stated size does not
                    raise zipfile.BadZipFile(f"{entry.filename!r} is shorter than it says")
    except _BROKEN as error:
        raise Corrupt(
            f"{archive.name} to be a whole zip archive", f"{error}", "the same command fetches it anew"
        ) from error
    return {entry.filename: entry.file_size for entry in entries}


def _judge(archive: Path, entries: Iterable[zipfile.ZipInfo], most_bytes: int) -> None:
    faults: list[str] = []
    taken: set[str] = set()
    total = 0
    for entry in entries:
        total += entry.file_size
        faults += [f"{entry.filename!r} {fault}" for fault in _faults(entry)]
        name = entry.filename.rstrip("/").lower()  # some file systems do not tell cases apart
        if name in taken and not entry.is_dir():
            faults.append(f"{entry.filename!r} is there twice")
        taken.add(name)
    if total > most_bytes:
        faults.append(f"it would unpack to {total / 2**30:.1f} GiB, more than {most_bytes / 2**30:.1f}")
    if faults:
        raise KitError(
            f"{archive.name} to hold only files that stay in their folder",
            f"{len(faults)} fault(s), the first: {faults[0]}",
            "nothing was unpacked; look at the archive, or raise kaggle.unpacked_max_gib if it is only large",
        )


def _faults(entry: zipfile.ZipInfo) -> list[str]:
    """What is wrong with one entry's name and kind."""
    path = PurePosixPath(entry.filename)
    faults = []
    if path.is_absolute() or ".." in path.parts or not path.parts or any(mark in entry.filename for mark in "\\:"):
        faults.append("would leave the folder")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        faults.append("is a link or another special file")
    if entry.flag_bits & _ENCRYPTED:
        faults.append("is encrypted")
    return faults
