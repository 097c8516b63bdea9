"""What `download` leaves beside the files it fetched: which competition, and the hash of its train.csv.

Files put there by hand have no record, and a train.csv that was changed since no longer fits it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from kit.files import sha256, write_json
from kit.records import read_record

_NAME = ".download.json"
_TABLE = "train.csv"


@dataclass(frozen=True)
class DownloadRecord:
    """The competition's name in its Kaggle address, and the SHA-256 of train.csv as it came."""

    slug: str
    table_sha256: str


def record_download(data: Path, slug: str) -> DownloadRecord:
    """Record that the files in ``data`` are the organisers' own, as they came."""
    record = DownloadRecord(slug, sha256(data / _TABLE))
    write_json(data / _NAME, asdict(record))
    return record


def read_download(data: Path) -> DownloadRecord | None:
    """The record of the download into ``data``; None where there was none. Raises KitError for a broken one."""
    path = data / _NAME
    if not path.exists():
        return None
    return read_record(path, DownloadRecord, f"delete {path}, and run `invoke download` again")


def has_own_table(data: Path) -> bool:
    """Whether train.csv is, byte for byte, the file that was downloaded."""
    record = read_download(data)
    return record is not None and (data / _TABLE).is_file() and sha256(data / _TABLE) == record.table_sha256
