"""An archive that is unpacked beside data/, in data/.download, and how its files move into data/.

``unpacked.json`` is written when the archive is unpacked whole; from then on a killed call can be continued.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.core.errors import KitError
from kit.core.files import explaining_write_errors, make_folder
from kit.core.json_files import read_record, write_json
from kit.data.provenance import DownloadRecord
from kit.kaggle.data_files import exists, require_unchanged, top_entries, would_overwrite

STAGING = ".download"  # in data/
FILES, REPLACED = "files", "old"  # in the staging folder: the archive's files, and what they replace
_UNPACKED = "unpacked.json"


@dataclass(frozen=True)
class Unpacked:
    """A whole unpacked archive: sizes of its files, SHA-256 of its train.csv, entries of data/ that it replaces."""

    slug: str
    files: Mapping[str, int]
    replaces: tuple[str, ...] = ()
    table_sha256: str = ""


def read_unpacked(staging: Path, slug: str) -> Unpacked | None:
    """What an interrupted call has unpacked, None if nothing. Raises KitError if it is another competition."""
    path = staging / _UNPACKED
    if not path.exists():
        return None
    unpacked = read_record(path, Unpacked, f"delete {staging} and call again")
    if unpacked.slug != slug:
        raise KitError(
            f"{staging} to hold a download of {slug}", f"an interrupted download of {unpacked.slug}",
            f"`invoke download --competition {unpacked.slug}` finishes it; or delete {staging}",
        )  # fmt: skip
    return unpacked


def write_unpacked(staging: Path, unpacked: Unpacked) -> None:
    """Record that an archive is unpacked whole."""
    write_json(staging / _UNPACKED, asdict(unpacked))


def move_in(data: Path, staging: Path, unpacked: Unpacked) -> None:
    """Rename each entry into data/, the tables last; first move out what they replace, the tables first."""
    entries = top_entries(unpacked.files)
    waiting = [name for name in entries if (staging / FILES / name).exists()]
    replaced = [name for name in top_entries(unpacked.replaces) if name in waiting or name not in entries]
    taken = [name for name in waiting if exists(data / name) and name not in unpacked.replaces]
    if taken:
        raise would_overwrite(data, taken)
    old = make_folder(staging / REPLACED)
    with explaining_write_errors(data):
        for name in reversed(replaced):
            if exists(data / name):
                (data / name).rename(old / name)
        for name in waiting:
            (staging / FILES / name).rename(data / name)


def discard(data: Path, staging: Path, unpacked: Unpacked) -> None:
    """Move out the files of an archive that were moved in and are not valid."""
    require_unchanged(data, unpacked.files, unpacked.table_sha256)
    old = make_folder(staging / REPLACED)
    with explaining_write_errors(data):
        for name in reversed(top_entries(unpacked.files)):
            if exists(data / name):
                shutil.rmtree(old / name, ignore_errors=True)  # what the archive had replaced
                (data / name).rename(old / name)
        shutil.rmtree(staging)


def is_moved_in(staging: Path, record: DownloadRecord) -> bool:
    """Whether all of an unpacked archive is in data/: a call was killed after it had written the record."""
    return (staging / _UNPACKED).exists() and not is_waiting(staging, record.files)


def is_waiting(staging: Path, files: Iterable[str]) -> bool:
    """Whether any of these files has not been moved in."""
    return any(exists(staging / FILES / name) for name in top_entries(files))
