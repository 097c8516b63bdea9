"""The competition's files in data/: fetched, verified, unpacked beside their place, moved in, judged, marked.

A kill may come between any two of these; the same call goes on. Files that somebody put there by hand are judged
in the same way and never overwritten.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kit.config import Config
from kit.core.errors import KitError, first_few
from kit.core.files import explaining_write_errors, make_folder, remove_partials, require_free_space, sha256
from kit.core.json_files import read_record, write_json
from kit.core.locks import exclusive
from kit.core.progress import Track, silent
from kit.data.provenance import (
    HAND,
    KAGGLE,
    MOUNTED,
    NAME,
    DownloadRecord,
    downloaded_slug,
    read_download,
    record_download,
)
from kit.kaggle.competition_api import connect
from kit.kaggle.zip_archive import Corrupt, unpack
from kit.schemas.file_names import COMPETITION_FILES, MAPPING, TABLE, TEST, TRAIN
from kit.schemas.image_headers import image_headers
from kit.schemas.tables import read_annotations, read_mapping

_WORK, _UNPACKED, _FILES, _OLD, _LOCK = ".download", "unpacked.json", "files", "old", ".download.lock"
_README = "README.md"
_GIB = 2**30
_SLUG = re.compile(r"(?:(?:(?:https?://)?(?:www\.)?kaggle\.com/)?(?:competitions|c)/)?([A-Za-z0-9-]+)(?:[/?#].*)?")


@dataclass(frozen=True)
class _Unpacked:
    """An archive that was unpacked whole, the SHA-256 of its train.csv, and what it may replace in data/."""

    slug: str
    files: Mapping[str, int]
    replaces: tuple[str, ...] = ()
    table_sha256: str = ""


def download(
    workspace: Path, config: Config, competition: str | None = None, force: bool = False, track: Track = silent
) -> tuple[DownloadRecord, bool]:
    """Bring a competition (a slug or its address) into ``WORKSPACE/data``; its record, and whether it was there.

    Without a name: the one that is there, else ``competition.slug``. ``force`` fetches anew what came from Kaggle.
    Raises KitError for all that goes wrong, TableError for tables that the schemas refuse.
    """
    data = make_folder(workspace / "data")
    with explaining_write_errors(data), exclusive(data / _LOCK, f"one download at a time into {data}"):
        return _download(data, config, _slug(competition, workspace, config), force, track)


def _download(data: Path, config: Config, slug: str, force: bool, track: Track) -> tuple[DownloadRecord, bool]:
    remove_partials(data)
    record = read_download(data)
    work = data / _WORK
    if record is not None and (not force or _is_spent(work, record)):
        shutil.rmtree(work, ignore_errors=True)
    if record is not None and not force:
        _require_as_marked(data, record, slug)
        return record, True
    if record is not None and record.origin == KAGGLE:
        _require_untouched(data, record.files, record.table_sha256)
    mounted = _mount(Path(config.kaggle.input_root), slug)
    if mounted is not None:
        return _link(data, mounted, config, slug), False
    kaggle = connect(config.kaggle)
    unpacked = _unpacked(work, slug)
    if force and unpacked is not None and not _is_waiting(work, unpacked.files):
        _discard(data, work, unpacked)
        unpacked = None
    if unpacked is None:
        listed = {file.name: file.size_bytes for file in kaggle.files(slug)}
        by_hand = _present(data) if record is None or record.origin != KAGGLE else []
        if by_hand:
            return _accept(data, listed, config, slug, by_hand, force), False
        replaces = () if record is None else tuple(_tops(record.files))
        files = _fetch(kaggle, work, listed, config, slug, track)
        table = work / _FILES / TABLE
        unpacked = _Unpacked(slug, files, replaces, sha256(table) if table.is_file() else "")
        write_json(work / _UNPACKED, asdict(unpacked))
    (data / NAME).unlink(missing_ok=True)
    _move_in(data, work, unpacked)
    marked = _mark_unpacked(data, config, unpacked)
    with explaining_write_errors(work):
        shutil.rmtree(work)
    return marked, False


def _fetch(
    kaggle: Any, work: Path, listed: Mapping[str, int], config: Config, slug: str, track: Track
) -> Mapping[str, int]:
    """Download, verify and unpack to ``work/files``; wrong bytes are fetched anew once."""
    make_folder(work)
    _require_room(work, listed)
    most_bytes = int(config.kaggle.unpacked_max_gib * _GIB)
    shutil.rmtree(work / _OLD, ignore_errors=True)
    for is_last in (False, True):
        shutil.rmtree(work / _FILES, ignore_errors=True)  # of a call that was killed while it unpacked
        archive = work / f"{slug}.zip"
        try:
            archive = kaggle.download(slug, work, track)
            sizes = unpack(archive, work / _FILES, most_bytes, track)
            break
        except Corrupt:
            archive.unlink(missing_ok=True)
            if is_last:
                raise
    faults = _differences(listed, sizes)
    if faults:
        archive.unlink()
        raise KitError(
            f"the archive of {slug} to hold the files that Kaggle lists", first_few(faults, separator="; "),
            "the same command fetches it anew; the list and the archive may have changed meanwhile",
        )  # fmt: skip
    return {name: size for name, size in sizes.items() if name != _README}


def _move_in(data: Path, work: Path, unpacked: _Unpacked) -> None:
    """One rename for each piece, the tables last; what it replaces is moved out first, the tables first."""
    tops = _tops(unpacked.files)
    waiting = [name for name in tops if (work / _FILES / name).exists()]
    leaving = [name for name in _tops(unpacked.replaces) if name in waiting or name not in tops]
    taken = [name for name in waiting if _there(data / name) and name not in unpacked.replaces]
    if taken:
        raise _overwriting(data, taken)
    old = make_folder(work / _OLD)
    with explaining_write_errors(data):
        for name in reversed(leaving):
            if _there(data / name):
                (data / name).rename(old / name)
        for name in waiting:
            (work / _FILES / name).rename(data / name)


def _discard(data: Path, work: Path, unpacked: _Unpacked) -> None:
    """Take away files of an archive that were moved in and then refused by the schemas."""
    _require_untouched(data, unpacked.files, unpacked.table_sha256)
    old = make_folder(work / _OLD)
    with explaining_write_errors(data):
        for name in reversed(_tops(unpacked.files)):
            if _there(data / name):
                shutil.rmtree(old / name, ignore_errors=True)  # what the archive had replaced
                (data / name).rename(old / name)
        shutil.rmtree(work)


def _accept(
    data: Path, listed: Mapping[str, int], config: Config, slug: str, by_hand: Iterable[str], force: bool
) -> DownloadRecord:
    """Judge files that were put there by hand as those from an archive are judged."""
    if force:
        raise _overwriting(data, by_hand)
    asked = {name: size for name, size in listed.items() if name.split("/")[0] in COMPETITION_FILES}
    found = _sizes(data, COMPETITION_FILES)
    faults = _differences(asked, found)
    if faults:
        raise KitError(
            f"the files in {data} to be those of {slug}", first_few(faults, separator="; "),
            "complete or correct them by hand, or move them away and let `invoke download` fetch them",
        )  # fmt: skip
    return _mark(data, config, slug, HAND, found)


def _link(data: Path, mounted: Path, config: Config, slug: str) -> DownloadRecord:
    """On Kaggle's own machines: a link for every piece of the mounted data."""
    ours = [
        name
        for name in COMPETITION_FILES
        if (data / name).is_symlink() and (data / name).readlink() == mounted / name
    ]
    by_hand = [name for name in _present(data) if name not in ours]
    if by_hand:
        raise _overwriting(data, by_hand)
    with explaining_write_errors(data):
        for name in COMPETITION_FILES:
            if name not in ours and (mounted / name).exists():
                (data / name).symlink_to(mounted / name)
    return _mark(data, config, slug, MOUNTED, _sizes(mounted, COMPETITION_FILES))


def _mark(data: Path, config: Config, slug: str, origin: str, files: Mapping[str, int]) -> DownloadRecord:
    """Judge the files where they stand, and write the record last."""
    judge(data, config)
    return record_download(data, slug, origin, files)


def _mark_unpacked(data: Path, config: Config, unpacked: _Unpacked) -> DownloadRecord:
    """The same for an archive's files; those that somebody corrected after a refusal count as put there by hand."""
    judge(data, config)
    found = _sizes(data, _tops(unpacked.files))
    if _differences(unpacked.files, found) or sha256(data / TABLE) != unpacked.table_sha256:
        return record_download(data, unpacked.slug, HAND, found)
    return record_download(data, unpacked.slug, KAGGLE, unpacked.files)


def judge(data: Path, config: Config) -> None:
    """What a competition's files must fulfil before anything is built on them. Raises TableError."""
    read_annotations(data / TABLE, image_headers(data / TRAIN), every_image=True)
    read_mapping(data / MAPPING, image_headers(data / TEST), config.competition.expected_ids)


def _require_as_marked(data: Path, record: DownloadRecord, slug: str) -> None:
    if record.slug != slug:
        raise KitError(
            f"{data} to hold {slug}", f"{record.slug}",
            "choose another folder with --workspace, or --force to replace it",
        )  # fmt: skip
    faults = _differences(record.files, _sizes(data, _tops(record.files)))
    if not faults and sha256(data / TABLE) != record.table_sha256:
        faults = [f"{TABLE}: other content"]
    if faults:
        do = "move away what was changed or added; then `invoke download --force` fetches all anew"
        if record.origin != KAGGLE:
            do = f"put them back; or, if the change is yours, delete {data / NAME} and call again"
        raise KitError(f"the files in {data} as `invoke download` left them", first_few(faults, separator="; "), do)


def _require_untouched(data: Path, files: Mapping[str, int], table_sha256: str) -> None:
    """Whether all that would be replaced is as it came: what the user added or changed is never deleted."""
    found = _sizes(data, _tops(files), with_hidden=True)
    mine = [name for name, size in sorted(found.items()) if files.get(name) != size]
    if TABLE in found and TABLE not in mine and sha256(data / TABLE) != table_sha256:
        mine.append(TABLE)
    if mine:
        raise KitError(
            f"nothing in {data} that `invoke download` did not bring, or that was changed since",
            first_few(mine, separator="; "),
            "move these away, then call again: --force would delete them",
        )  # fmt: skip


def _require_room(work: Path, listed: Mapping[str, int]) -> None:
    """The archive is hardly smaller than its files: radiographs are compressed already."""
    there = sum(size for name, size in _sizes(work.parent, [work.name]).items() if _OLD not in name.split("/"))
    needed = 2 * sum(listed.values()) - there
    require_free_space(work, needed, f"more room for the archive and its files in {work.parent}")


def _overwriting(data: Path, names: Iterable[str]) -> KitError:
    return KitError(
        f"nothing in {data} that `invoke download` did not bring",
        ", ".join(names),
        "move these away; or, if they are the competition's files, call without --force: then they are checked",
    )


def _slug(text: str | None, workspace: Path, config: Config) -> str:
    if text is None:
        return downloaded_slug(workspace) or config.competition.slug
    match = _SLUG.fullmatch(text.strip())
    if match is None:
        raise KitError(
            "a competition's name or address", repr(text),
            "write it as in https://www.kaggle.com/competitions/SLUG (--competition SLUG)",
        )  # fmt: skip
    return match[1]


def _mount(root: Path, slug: str) -> Path | None:
    """Where Kaggle mounts the competition; it has used both places."""
    places = (root / slug, root / "competitions" / slug)
    return next((place for place in places if place.is_dir()), None)


def _unpacked(work: Path, slug: str) -> _Unpacked | None:
    path = work / _UNPACKED
    found = read_record(path, _Unpacked, f"delete {work} and call again") if path.exists() else None
    if found is not None and found.slug != slug:
        raise KitError(
            f"{work} to be of {slug}", f"a download of {found.slug} that was stopped",
            f"`invoke download --competition {found.slug}` ends it; or delete {work}",
        )  # fmt: skip
    return found


def _is_spent(work: Path, record: DownloadRecord) -> bool:
    """Whether a call was killed between writing the record and clearing up: all has been moved in."""
    return (work / _UNPACKED).exists() and not _is_waiting(work, record.files)


def _is_waiting(work: Path, files: Iterable[str]) -> bool:
    """Whether any of these has not been moved in."""
    return any(_there(work / _FILES / name) for name in _tops(files))


def _present(data: Path) -> list[str]:
    return [name for name in COMPETITION_FILES if _there(data / name)]


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _tops(files: Iterable[str]) -> list[str]:
    """What stands at the top of these paths, in the order in which it appears in data/."""
    tops = sorted({name.split("/")[0] for name in files})
    return sorted(tops, key=lambda name: COMPETITION_FILES.index(name) if name in COMPETITION_FILES else -1)


def _sizes(folder: Path, names: Iterable[str], with_hidden: bool = False) -> dict[str, int]:
    """The files under these names of a folder by their paths in it; links are followed."""
    found = {}
    for name in names:
        path = folder / name
        if path.is_file():
            found[name] = path.stat().st_size
        for parent, _, files in os.walk(path):
            for file in files:
                inner = Path(parent) / file
                if with_hidden or not file.startswith("."):  # what desktops leave in folders
                    size = inner.stat().st_size if inner.exists() else -1  # a link that leads nowhere
                    found[inner.relative_to(folder).as_posix()] = size
    return found


def _differences(expected: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """What two lists do not share, without hidden files: desktops leave them in folders, and so in archives."""
    expected, found = _shown(expected), _shown(found)
    missing = [f"{name}: missing" for name in sorted(set(expected) - set(found))]
    strange = [f"{name}: not in the list" for name in sorted(set(found) - set(expected))]
    sizes = [
        f"{name}: {found[name]} bytes instead of {size}"
        for name, size in sorted(expected.items())
        if found.get(name, size) != size
    ]
    return missing + sizes + strange


def _shown(sizes: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if not name.split("/")[-1].startswith(".")}
