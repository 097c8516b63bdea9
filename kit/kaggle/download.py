"""Download a competition into data/: fetch, verify, unpack in data/.download, move in, validate, record.

A kill may come between any two of these steps; the same call goes on from there. Files that the user put there by
hand are validated in the same way and never overwritten.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kit.config import Config
from kit.core.errors import KitError, first_few
from kit.core.files import explaining_write_errors, make_folder, remove_partials, require_free_space, sha256
from kit.core.locks import exclusive
from kit.core.progress import Track, silent
from kit.data.audit import require_checks
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
    file_sizes,
    lacking,
    present_entries,
    require_as_recorded,
    require_unchanged,
    top_entries,
    unlisted,
    with_line_ends_of,
    would_overwrite,
)
from kit.kaggle.layout import arrange, in_data, unwrapped
from kit.kaggle.unpacked import (
    FILES,
    REPLACED,
    STAGING,
    Unpacked,
    discard,
    is_moved_in,
    is_waiting,
    move_in,
    read_unpacked,
    write_unpacked,
)
from kit.kaggle.zip_archive import Corrupt, unpack
from kit.schemas.file_names import COMPETITION_FILES, MAPPING, TABLE, TEST, TRAIN, entry_like, is_companion
from kit.schemas.image_headers import image_headers
from kit.schemas.misplaced import misplaced, misplaced_files
from kit.schemas.tables import read_annotations, read_mapping

FILE_LIST = "file-list"  # for --allow: Kaggle's list of files, which may be wrong
_LOCK = ".download.lock"
_README = "README.md"
_GIB = 2**30
log = logging.getLogger("kit")
_SLUG = re.compile(r"(?:(?:(?:https?://)?(?:www\.)?kaggle\.com/)?(?:competitions|c)/)?([A-Za-z0-9-]+)(?:[/?#].*)?")


def download(
    workspace: Path,
    config: Config,
    competition: str | None = None,
    force: bool = False,
    track: Track = silent,
    allow: Sequence[str] = (),
) -> tuple[DownloadRecord, bool]:
    """Download a competition into ``WORKSPACE/data``, and continue a download that was interrupted.

    Args:
        workspace: The folder that holds data/.
        config: The knobs; the sections competition and kaggle are used.
        competition: A slug or its address; by default the competition in data/, else ``competition.slug``.
        force: Fetch anew what came from Kaggle before.
        track: Shows the progress.
        allow: "file-list" takes files that differ from Kaggle's list of them, if tables and images fit each other;
            checks of the audit are for the caller.

    Returns:
        The record of the download, and whether everything was there already.

    Raises:
        KitError: The download fails, or data/ holds files that it would overwrite.
        TableError: The tables are not valid; the error lists every fault.
    """
    require_checks(allow, (FILE_LIST,))
    data = make_folder(workspace / "data")
    with explaining_write_errors(data), exclusive(data / _LOCK, f"one download at a time into {data}"):
        return _download(data, config, _slug(competition, workspace, config), force, track, allow)


def _download(
    data: Path, config: Config, slug: str, force: bool, track: Track, allow: Sequence[str]
) -> tuple[DownloadRecord, bool]:
    remove_partials(data)
    record = read_download(data)
    staging = data / STAGING
    if record is not None and (not force or is_moved_in(staging, record)):
        shutil.rmtree(staging, ignore_errors=True)
    if record is not None and not force:
        require_as_recorded(data, record, slug)
        return record, True
    if record is not None and record.origin == KAGGLE:
        require_unchanged(data, record.files, record.table_sha256)
    mounted = _mounted_folder(Path(config.kaggle.input_root), slug)
    if mounted is not None:
        return _link(data, mounted, config, slug), False
    kaggle = connect(config.kaggle)
    unpacked = read_unpacked(staging, slug)
    if force and unpacked is not None and not is_waiting(staging, unpacked.files):
        discard(data, staging, unpacked)
        unpacked = None
    if unpacked is None:
        listed = {file.name.replace("\\", "/"): file.size_bytes for file in kaggle.files(slug)}
        by_hand = present_entries(data) if record is None or record.origin != KAGGLE else []
        if record is None and not by_hand and not force:
            _require_no_other_form(data)
        if by_hand:
            return _accept(data, listed, config, slug, by_hand, force, allow), False
        replaces = () if record is None else tuple(top_entries(record.files))
        files = _fetch(kaggle, staging, listed, config, slug, track, allow)
        table = staging / FILES / TABLE
        unpacked = Unpacked(slug, files, replaces, sha256(table) if table.is_file() else "")
        write_unpacked(staging, unpacked)
    (data / NAME).unlink(missing_ok=True)
    move_in(data, staging, unpacked)
    record = _record_unpacked(data, config, unpacked)
    with explaining_write_errors(staging):
        shutil.rmtree(staging)
    return record, False


def _fetch(
    kaggle: Kaggle,
    staging: Path,
    listed: Mapping[str, int],
    config: Config,
    slug: str,
    track: Track,
    allow: Sequence[str],
) -> Mapping[str, int]:
    """Download, verify and unpack to ``staging/files``; sizes by path. A corrupt archive is fetched once more."""
    make_folder(staging)
    if FILE_LIST not in allow:
        _require_room(staging, listed)
    most_bytes = int(config.kaggle.unpacked_max_gib * _GIB)
    shutil.rmtree(staging / REPLACED, ignore_errors=True)
    for is_last in (False, True):
        shutil.rmtree(staging / FILES, ignore_errors=True)  # of a call that was killed while it unpacked
        archive = staging / f"{slug}.zip"
        try:
            archive = kaggle.download(slug, staging, track)
            sizes = unpack(archive, staging / FILES, most_bytes, track)
            break
        except Corrupt:
            archive.unlink(missing_ok=True)
            if is_last:
                raise
    if faults := lacking(listed, sizes) and lacking(unwrapped(listed), unwrapped(sizes)):
        _refuse_or_warn(
            f"the archive of {slug} to hold the files that Kaggle lists", faults,
            f"the same command compares again, without fetching {archive} again if it is still the same; with "
            f"--allow {FILE_LIST} it takes the archive, which is whole, as it is; or unpack it by hand, put "
            f"{', '.join(COMPETITION_FILES)} into data/, and add what is missing there",
            allow,
        )  # fmt: skip
    if more := min(unlisted(listed, sizes), unlisted(unwrapped(listed), unwrapped(sizes)), key=len):
        _warn_of_unlisted(more, len(sizes), "the archive is whole, and all of it is used")
    arrange(staging / FILES, archive, most_bytes - sum(sizes.values()), track)
    arranged = file_sizes(staging / FILES, _entries(staging / FILES), with_hidden=True)
    return {name: size for name, size in arranged.items() if name != _README and not is_companion(name)}


def _accept(
    data: Path,
    listed: Mapping[str, int],
    config: Config,
    slug: str,
    by_hand: Iterable[str],
    force: bool,
    allow: Sequence[str],
) -> DownloadRecord:
    """Validate and record files that the user put there by hand. Raises KitError with ``force``."""
    if force:
        do = "; or, if they are the competition's files, call without --force: then they are checked"
        raise would_overwrite(data, by_hand, do)
    expected = {path: size for path, size in in_data(listed).items() if _entry(path) in COMPETITION_FILES}
    sizes = file_sizes(data, COMPETITION_FILES)
    if faults := lacking(expected, with_line_ends_of(expected, sizes, data)):
        elsewhere = misplaced_files(data)
        do = elsewhere or "complete or correct them by hand"
        do += "; or move them away and let `invoke download` fetch them"
        if not elsewhere:
            do += f"; or, if Kaggle's list is wrong, --allow {FILE_LIST} takes them as they are"
        _refuse_or_warn(f"the files in {data} to be those of {slug}", faults, do, allow)
    if more := unlisted(expected, sizes):
        _warn_of_unlisted(more, len(sizes), "they are taken as they are")
    return _record(data, config, slug, HAND, sizes)


def _link(data: Path, mounted: Path, config: Config, slug: str) -> DownloadRecord:
    """Link data/ to the files that Kaggle mounts on its own machines, then validate and record them."""
    there = _mounted_entries(mounted)
    ours = [name for name, path in there.items() if (data / name).is_symlink() and (data / name).readlink() == path]
    by_hand = [name for name in present_entries(data) if name not in ours]
    if by_hand:
        raise would_overwrite(data, by_hand)
    with explaining_write_errors(data):
        for name, path in there.items():
            if name not in ours:
                (data / name).symlink_to(path)
    return _record(data, config, slug, MOUNTED, file_sizes(data, COMPETITION_FILES))


def _mounted_entries(mounted: Path) -> dict[str, Path]:
    """The competition's files and folders that are mounted, by their names in data/: ``Train`` is train."""
    found = {entry_like(path.name): path for path in sorted(mounted.iterdir())}
    found |= {name: mounted / name for name in COMPETITION_FILES if (mounted / name).exists()}
    return {name: found[name] for name in COMPETITION_FILES if name in found}


def _record_unpacked(data: Path, config: Config, unpacked: Unpacked) -> DownloadRecord:
    """Validate and record an archive's files; files that the user corrected since count as put there by hand."""
    sizes = file_sizes(data, {*top_entries(unpacked.files), *COMPETITION_FILES})
    table = data / TABLE
    is_same = not differences(unpacked.files, sizes) and table.is_file() and sha256(table) == unpacked.table_sha256
    return _record(data, config, unpacked.slug, *((KAGGLE, unpacked.files) if is_same else (HAND, sizes)))


def _record(data: Path, config: Config, slug: str, origin: str, files: Mapping[str, int]) -> DownloadRecord:
    """Validate the files in data/, and write the record last. Raises TableError if they are not valid."""
    repeats, orientation = config.data.repeated_boxes == "fuse", config.data.orientation
    read_annotations(data / TABLE, image_headers(data / TRAIN, orientation), every_image=True, repeats=repeats)
    read_mapping(data / MAPPING, image_headers(data / TEST, orientation), config.competition.expected_ids)
    return record_download(data, slug, origin, files)


def _require_no_other_form(data: Path) -> None:
    """Raise KitError if a user has put the competition's files into data/ in another form; warn if they may be."""
    found = misplaced(data)
    names = first_few(one.name for one in found)
    do = "; ".join(one.do for one in found)
    if any(one.is_certain for one in found):
        raise KitError(
            f"{data} without the competition's files in another form, before they are downloaded", names,
            f"{do}; then call again: they are checked. Or `invoke download --force` fetches all from Kaggle",
        )  # fmt: skip
    if found:
        log.warning("downloading; if %s in %s is the competition's, stop here (Ctrl-C), and %s", names, data, do)


def _refuse_or_warn(expected: str, faults: list[str], do: str, allow: Sequence[str]) -> None:
    """Raise KitError for files that differ from Kaggle's list; if that is allowed, warn."""
    found = first_few(faults, separator="; ")
    if FILE_LIST not in allow:
        raise KitError(expected, found, do)
    log.warning("Kaggle's list differs, which is allowed: %s", found)


def _warn_of_unlisted(names: list[str], count: int, do: str) -> None:
    log.warning("Kaggle's list lacks %d of %d files (%s): %s", len(names), count, first_few(names, 3), do)


def _entry(path: str) -> str:
    return path.partition("/")[0]


def _entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _require_room(staging: Path, listed: Mapping[str, int]) -> None:
    """Raise KitError if archive and files do not fit the disk: radiographs are compressed, so both are as large."""
    sizes = file_sizes(staging.parent, [staging.name])
    present = sum(size for path, size in sizes.items() if REPLACED not in path.split("/"))
    needed = 2 * sum(listed.values()) - present
    what = f"more room for the archive and its files, as Kaggle lists them, in {staging.parent}"
    require_free_space(staging, needed, f"{what} (--allow {FILE_LIST} if the list is wrong)")


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
    mounted = next((folder for folder in folders if folder.is_dir()), None)
    if mounted is None or TABLE in _mounted_entries(mounted):
        return mounted
    deeper = [path for path in mounted.iterdir() if path.is_dir() and TABLE in _mounted_entries(path)]
    return deeper[0] if len(deeper) == 1 and not entry_like(deeper[0].name) else mounted
