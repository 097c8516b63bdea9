"""Where an archive has the competition's files: at its top, in a folder more, or in zips of their own.

Organisers pack in all these ways; data/ has one. ``arrange`` moves what was unpacked before anything is recorded.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from kit.core.errors import KitError, first_few
from kit.core.files import explaining_write_errors, make_folder
from kit.core.progress import Track, silent
from kit.kaggle.data_files import exists
from kit.kaggle.zip_archive import Corrupt, unpack
from kit.schemas.file_names import COMPETITION_FILES, TEST, TRAIN, entry_like, is_companion, zipped_entry
from kit.schemas.places import enclosing_folder, placed

_INNER = ".inner"  # beside the unpacked files
log = logging.getLogger("kit")


def unwrapped(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of an archive's files by their paths below the enclosing folder."""
    outer = enclosing_folder(sizes)
    return {name.removeprefix(f"{outer}/") if outer else name: size for name, size in sizes.items()}


def in_data(sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of an archive's files by their paths in data/; those in zips of their own are left out."""
    return {goal: sizes[name] for name, goal in placed(sizes).items() if "/" in goal or not zipped_entry(goal)}


def arrange(folder: Path, archive: Path, most_bytes: int, track: Track = silent) -> None:
    """Move unpacked files to where data/ has them: up from a folder more, out of zips of their own, to their names.

    Args:
        folder: The unpacked files of the archive.
        archive: The archive, for the errors.
        most_bytes: How large the unpacked zips may be together.
        track: Shows the progress.

    Raises:
        KitError: A zip in the archive is broken or harmful, or a file would replace another one; the archive stays.
    """
    with explaining_write_errors(folder):
        _move(folder, folder, archive)
        for path in sorted(folder.iterdir()):
            entry = zipped_entry(path.name)
            if entry and path.is_file() and not exists(folder / entry):
                most_bytes -= _unpack_zip(folder, path, entry, archive, most_bytes, track)
        _move(folder, folder, archive)


def _unpack_zip(folder: Path, path: Path, entry: str, archive: Path, most_bytes: int, track: Track) -> int:
    """Unpack a zip of the archive to its entry of data/, and delete it; its unpacked size in bytes."""
    with _inner_folder(folder) as inner:
        try:
            sizes = unpack(path, inner, most_bytes, track)
        except Corrupt as error:
            raise _by_hand(
                archive, f"{path.name} in {archive.name} to be a whole zip archive", error.found
            ) from error
        goals = placed(sizes)
        if entry in (TRAIN, TEST) and not any(goal.startswith(f"{entry}/") for goal in goals.values()):
            inner.rename(folder / entry)
        elif entry in (TRAIN, TEST):
            _move(inner, folder, archive)
        else:
            _take_table(inner, folder, entry, path.name, archive)
    path.unlink()
    return sum(sizes.values())


def _take_table(inner: Path, folder: Path, table: str, zip_name: str, archive: Path) -> None:
    """Move a table out of its unpacked zip. Raises KitError if it is not there, or twice."""
    names = _names(inner)
    tables = [name for name in names if entry_like(name.rpartition("/")[2]) == table]
    if len(tables) != 1:
        raise _by_hand(archive, f"{table} in {zip_name} of {archive.name}", first_few(tables) or "no such file")
    (inner / tables[0]).rename(folder / table)
    if others := [name for name in names if name not in tables]:
        log.warning("%s in %s holds more than %s, which is not used: %s", zip_name, archive.name, table,
                    first_few(others, 3))  # fmt: skip


def _move(source: Path, goal: Path, archive: Path) -> None:
    """Move the files of a folder to their paths in another one, or in itself. Raises KitError if one is there."""
    places = placed(_names(source))
    tops = [place.split("/")[0] for place in places.values()]
    if source == goal:
        twice = [place for place, count in Counter(places.values()).items() if count > 1]
        outer = enclosing_folder(places)
        outside = {name.split("/")[0] for name in places if outer and not name.startswith(f"{outer}/")}
        moved = {place.split("/")[0] for name, place in places.items() if outer and name.startswith(f"{outer}/")}
        taken = [*twice, *sorted(moved & outside & set(COMPETITION_FILES))]
    else:
        taken = [top for top in sorted(set(tops)) if exists(goal / top)]
    if taken:
        raise _by_hand(archive, f"one {taken[0]} in {archive.name}", "two, in different folders")
    if moved_here := [(name, place) for name, place in places.items() if source == goal and name != place]:
        name, place = moved_here[0]
        log.info("%s: %d files are put where data/ has them, such as %s at %s", archive.name, len(moved_here), name,
                 place)  # fmt: skip
    for name, place in places.items():
        if source != goal or name != place:
            make_folder((goal / place).parent)
            (source / name).rename(goal / place)
            _prune((source / name).parent, source)


def _prune(folder: Path, root: Path) -> None:
    """Delete a folder that has become empty, and those around it, up to ``root``."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _names(folder: Path) -> list[str]:
    """The paths of all files of a folder, but those that desktops leave."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return [name for name in names if not is_companion(name)]


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
