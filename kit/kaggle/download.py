"""Download a competition into data/: fetch, verify, unpack in data/.download, move in, validate, record.

A kill may come between any two of these steps; the same call goes on from there. Files that the user put there by
hand are validated in the same way and never overwritten.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

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
from kit.kaggle.competition_api import Kaggle, connect
from kit.kaggle.data_files import (
    differences,
    exists,
    file_sizes,
    present_entries,
    require_as_recorded,
    require_unchanged,
    top_entries,
    would_overwrite,
)
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
    """A whole unpacked archive: sizes of its files, SHA-256 of its train.csv, entries of data/ that it replaces."""

    slug: str
    files: Mapping[str, int]
    replaces: tuple[str, ...] = ()
    table_sha256: str = ""


def download(
    workspace: Path, config: Config, competition: str | None = None, force: bool = False, track: Track = silent
) -> tuple[DownloadRecord, bool]:
    """Download a competition into ``WORKSPACE/data``, and continue a download that was interrupted.

    Args:
        workspace: The folder that holds data/.
        config: The knobs; the sections competition and kaggle are used.
        competition: A slug or its address; by default the competition in data/, else ``competition.slug``.
        force: Fetch anew what came from Kaggle before.
        track: Shows the progress.

    Returns:
        The record of the download, and whether everything was there already.

    Raises:
        KitError: The download fails, or data/ holds files that it would overwrite.
        TableError: The tables are not valid; the error lists every fault.
    """
    data = make_folder(workspace / "data")
    with explaining_write_errors(data), exclusive(data / _LOCK, f"one download at a time into {data}"):
        return _download(data, config, _slug(competition, workspace, config), force, track)


def _download(data: Path, config: Config, slug: str, force: bool, track: Track) -> tuple[DownloadRecord, bool]:
    remove_partials(data)
    record = read_download(data)
    work = data / _WORK
    if record is not None and (not force or _is_moved_in(work, record)):
        shutil.rmtree(work, ignore_errors=True)
    if record is not None and not force:
        require_as_recorded(data, record, slug)
        return record, True
    if record is not None and record.origin == KAGGLE:
        require_unchanged(data, record.files, record.table_sha256)
    mounted = _mounted_folder(Path(config.kaggle.input_root), slug)
    if mounted is not None:
        return _link(data, mounted, config, slug), False
    kaggle = connect(config.kaggle)
    unpacked = _read_unpacked(work, slug)
    if force and unpacked is not None and not _is_waiting(work, unpacked.files):
        _discard(data, work, unpacked)
        unpacked = None
    if unpacked is None:
        listed = {file.name: file.size_bytes for file in kaggle.files(slug)}
        by_hand = present_entries(data) if record is None or record.origin != KAGGLE else []
        if by_hand:
            return _accept(data, listed, config, slug, by_hand, force), False
        replaces = () if record is None else tuple(top_entries(record.files))
        files = _fetch(kaggle, work, listed, config, slug, track)
        table = work / _FILES / TABLE
        unpacked = _Unpacked(slug, files, replaces, sha256(table) if table.is_file() else "")
        write_json(work / _UNPACKED, asdict(unpacked))
    (data / NAME).unlink(missing_ok=True)
    _move_in(data, work, unpacked)
    record = _record_unpacked(data, config, unpacked)
    with explaining_write_errors(work):
        shutil.rmtree(work)
    return record, False


def _fetch(
    kaggle: Kaggle, work: Path, listed: Mapping[str, int], config: Config, slug: str, track: Track
) -> Mapping[str, int]:
    """Download, verify and unpack to ``work/files``; sizes by path. A corrupt archive is fetched once more."""
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
    faults = differences(listed, sizes)
    if faults:
        archive.unlink()
        raise KitError(
            f"the archive of {slug} to hold the files that Kaggle lists", first_few(faults, separator="; "),
            "the same command fetches it anew; the list and the archive may have changed meanwhile",
        )  # fmt: skip
    return {name: size for name, size in sizes.items() if name != _README}


def _move_in(data: Path, work: Path, unpacked: _Unpacked) -> None:
    """Rename each entry into data/, the tables last; first move out what they replace, the tables first."""
    entries = top_entries(unpacked.files)
    waiting = [name for name in entries if (work / _FILES / name).exists()]
    replaced = [name for name in top_entries(unpacked.replaces) if name in waiting or name not in entries]
    taken = [name for name in waiting if exists(data / name) and name not in unpacked.replaces]
    if taken:
        raise would_overwrite(data, taken)
    old = make_folder(work / _OLD)
    with explaining_write_errors(data):
        for name in reversed(replaced):
            if exists(data / name):
                (data / name).rename(old / name)
        for name in waiting:
            (work / _FILES / name).rename(data / name)


def _discard(data: Path, work: Path, unpacked: _Unpacked) -> None:
    """Move out the files of an archive that were moved in and are not valid."""
    require_unchanged(data, unpacked.files, unpacked.table_sha256)
    old = make_folder(work / _OLD)
    with explaining_write_errors(data):
        for name in reversed(top_entries(unpacked.files)):
            if exists(data / name):
                shutil.rmtree(old / name, ignore_errors=True)  # what the archive had replaced
                (data / name).rename(old / name)
        shutil.rmtree(work)


def _accept(
    data: Path, listed: Mapping[str, int], config: Config, slug: str, by_hand: Iterable[str], force: bool
) -> DownloadRecord:
    """Validate and record files that the user put there by hand. Raises KitError with ``force``."""
    if force:
        raise would_overwrite(data, by_hand)
    expected = {path: size for path, size in listed.items() if path.split("/")[0] in COMPETITION_FILES}
    sizes = file_sizes(data, COMPETITION_FILES)
    faults = differences(expected, sizes)
    if faults:
        raise KitError(
            f"the files in {data} to be those of {slug}", first_few(faults, separator="; "),
            "complete or correct them by hand, or move them away and let `invoke download` fetch them",
        )  # fmt: skip
    return _record(data, config, slug, HAND, sizes)


def _link(data: Path, mounted: Path, config: Config, slug: str) -> DownloadRecord:
    """Link data/ to the files that Kaggle mounts on its own machines, then validate and record them."""
    ours = [
        name
        for name in COMPETITION_FILES
        if (data / name).is_symlink() and (data / name).readlink() == mounted / name
    ]
    by_hand = [name for name in present_entries(data) if name not in ours]
    if by_hand:
        raise would_overwrite(data, by_hand)
    with explaining_write_errors(data):
        for name in COMPETITION_FILES:
            if name not in ours and (mounted / name).exists():
                (data / name).symlink_to(mounted / name)
    return _record(data, config, slug, MOUNTED, file_sizes(mounted, COMPETITION_FILES))


def _record_unpacked(data: Path, config: Config, unpacked: _Unpacked) -> DownloadRecord:
    """Validate and record an archive's files; files that the user corrected since count as put there by hand."""
    sizes = file_sizes(data, top_entries(unpacked.files))
    table = data / TABLE
    is_same = not differences(unpacked.files, sizes) and table.is_file() and sha256(table) == unpacked.table_sha256
    return _record(data, config, unpacked.slug, *((KAGGLE, unpacked.files) if is_same else (HAND, sizes)))


def _record(data: Path, config: Config, slug: str, origin: str, files: Mapping[str, int]) -> DownloadRecord:
    """Validate the files in data/, and write the record last. Raises TableError if they are not valid."""
    read_annotations(data / TABLE, image_headers(data / TRAIN), every_image=True)
    read_mapping(data / MAPPING, image_headers(data / TEST), config.competition.expected_ids)
    return record_download(data, slug, origin, files)


def _require_room(work: Path, listed: Mapping[str, int]) -> None:
    """Raise KitError if archive and files do not fit the disk: radiographs are compressed, so both are as large."""
    sizes = file_sizes(work.parent, [work.name])
    present = sum(size for path, size in sizes.items() if _OLD not in path.split("/"))
    needed = 2 * sum(listed.values()) - present
    require_free_space(work, needed, f"more room for the archive and its files in {work.parent}")


def _slug(text: str | None, workspace: Path, config: Config) -> str:
    """The requested competition's slug. Raises KitError if the text is neither a slug nor an address."""
    if text is None:
        return downloaded_slug(workspace) or config.competition.slug
    match = _SLUG.fullmatch(text.strip())
    if match is None:
        raise KitError(
            "a competition's name or address", repr(text),
            "write it as in https://www.kaggle.com/competitions/SLUG (--competition SLUG)",
        )  # fmt: skip
    return match[1]


def _mounted_folder(root: Path, slug: str) -> Path | None:
    """The folder in which Kaggle mounts the competition; it has used both paths."""
    folders = (root / slug, root / "competitions" / slug)
    return next((folder for folder in folders if folder.is_dir()), None)


def _read_unpacked(work: Path, slug: str) -> _Unpacked | None:
    """What an interrupted call has unpacked, None if nothing. Raises KitError if it is another competition."""
    path = work / _UNPACKED
    if not path.exists():
        return None
    unpacked = read_record(path, _Unpacked, f"delete {work} and call again")
    if unpacked.slug != slug:
        raise KitError(
            f"{work} to hold a download of {slug}", f"an interrupted download of {unpacked.slug}",
            f"`invoke download --competition {unpacked.slug}` finishes it; or delete {work}",
        )  # fmt: skip
    return unpacked


def _is_moved_in(work: Path, record: DownloadRecord) -> bool:
    """Whether all of an unpacked archive is in data/: a call was killed after it had written the record."""
    return (work / _UNPACKED).exists() and not _is_waiting(work, record.files)


def _is_waiting(work: Path, files: Iterable[str]) -> bool:
    """Whether any of these files has not been moved in."""
    return any(exists(work / _FILES / name) for name in top_entries(files))
