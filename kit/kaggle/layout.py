"""Where an archive has the competition's files: at its top, in a folder more, or in zips of their own.

Organisers pack in all these ways; data/ has one. ``arrange`` moves what was unpacked before anything is recorded.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from kit.core.errors import KitError
from kit.core.files import explaining_write_errors
from kit.core.progress import Track, silent
from kit.kaggle.data_files import exists
from kit.kaggle.zip_archive import Corrupt, unpack
from kit.schemas.file_names import COMPETITION_FILES, TABLE, TEST, TRAIN, ZIPS, is_companion

_INNER = ".inner"  # beside the unpacked files


def enclosing_folder(names: Iterable[str]) -> str:
    """The folder of an archive that has the competition's files, "" for its top, from the paths of all files.

    It is the only uppermost folder that has train.csv, alone or in a zip; "" if there is none, or several.
    """
    paths = [PurePosixPath(name) for name in names if not is_companion(name)]
    folders = {path.parent for path in paths if path.name in (TABLE, *ZIPS[TABLE])}
    highest = min((len(folder.parts) for folder in folders), default=0)
    found = [folder.as_posix() for folder in folders if len(folder.parts) == highest]
    return found[0] if highest and len(found) == 1 else ""


def unwrapped(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of an archive's files by their paths below the enclosing folder."""
    outer = enclosing_folder(sizes)
    return {name.removeprefix(f"{outer}/") if outer else name: size for name, size in sizes.items()}


def in_data(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of an archive's files by their paths in data/; those in zips of their own are left out."""
    zips = {name for options in ZIPS.values() for name in options}
    return {path: size for path, size in unwrapped(sizes).items() if path not in zips}


def arrange(folder: Path, archive: Path, most_bytes: int, track: Track = silent) -> None:
    """Move unpacked files to where data/ has them: up from a folder more, out of zips of their own.

    Args:
        folder: The unpacked files of the archive.
        archive: The archive, for the errors.
        most_bytes: How large the unpacked zips may be together.
        track: Shows the progress.

    Raises:
        KitError: A zip in the archive is broken or harmful, or a file would replace another one; the archive stays.
    """
    with explaining_write_errors(folder):
        outer = enclosing_folder(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        if outer:
            with _inner_folder(folder) as inner:
                (folder / outer).rename(inner)
                for parent in (folder / outer).parents:
                    if parent == folder or any(parent.iterdir()):
                        break
                    parent.rmdir()
                _move(inner, folder, archive)
        for entry, names in ZIPS.items():
            for name in names:
                if (folder / name).is_file() and not exists(folder / entry):
                    most_bytes -= _unpack_zip(folder, name, entry, archive, most_bytes, track)


def _unpack_zip(folder: Path, name: str, entry: str, archive: Path, most_bytes: int, track: Track) -> int:
    """Unpack a zip of the archive to its entry of data/, and delete it; its unpacked size in bytes."""
    with _inner_folder(folder) as inner:
        try:
            sizes = unpack(folder / name, inner, most_bytes, track)
        except Corrupt as error:
            raise _by_hand(archive, f"{name} in {archive.name} to be a whole zip archive", error.found) from error
        if (inner / entry).exists():
            _move(inner, folder, archive)
        elif entry in (TRAIN, TEST):
            inner.rename(folder / entry)
        else:
            raise _by_hand(archive, f"{entry} in {name} of {archive.name}", "no such file")
    (folder / name).unlink()
    return sum(sizes.values())


def _move(source: Path, folder: Path, archive: Path) -> None:
    """Move what a folder holds into another one. Raises KitError if a file is there already."""
    entries = [path for path in sorted(source.iterdir()) if not is_companion(path.name)]
    taken = [path.name for path in entries if exists(folder / path.name)]
    if taken:
        raise _by_hand(archive, f"one {taken[0]} in {archive.name}", "two, in different folders")
    for path in entries:
        path.rename(folder / path.name)


@contextlib.contextmanager
def _inner_folder(folder: Path) -> Iterator[Path]:
    """A path beside the unpacked files that is free, and is removed afterwards."""
    inner = folder.parent / _INNER
    shutil.rmtree(inner, ignore_errors=True)  # of a call that was killed
    yield inner
    shutil.rmtree(inner, ignore_errors=True)


def _by_hand(archive: Path, expected: str, found: str) -> KitError:
    do = (
        f"unpack {archive} by hand, put {', '.join(COMPETITION_FILES)} into data/, and call again: they are checked"
    )
    return KitError(expected, found, do)
