"""The record of a download: the competition, the origin of its files, the hash of train.csv, the sizes.

It is written after all files. Files that a user put into data/ get a record once they are checked; only those
from Kaggle are the organisers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kit.core.json_files import read_record, write_json
from kit.core.text_files import has_sha256, text_sha256
from kit.schemas.file_names import TABLE

NAME = ".download.json"
KAGGLE, MOUNTED, HAND = "kaggle", "mounted", "hand"


@dataclass(frozen=True)
class DownloadRecord:
    """The competition's name in its Kaggle address, and the SHA-256 of train.csv's text as it came.

    ``origin`` is kaggle (downloaded), mounted (on Kaggle's own machines) or hand; ``files`` has every file's size
    in bytes by its path in data/.
    """

    slug: str
    table_sha256: str
    origin: str = KAGGLE
    files: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.origin not in (KAGGLE, MOUNTED, HAND):
            raise ValueError(f"files come from {KAGGLE}, {MOUNTED} or {HAND}, not {self.origin!r}")


def record_download(
    data: Path, slug: str, origin: str = KAGGLE, files: Mapping[str, int] | None = None
) -> DownloadRecord:
    """Record which competition lies in ``data``, and the hash of its train.csv."""
    record = DownloadRecord(slug, text_sha256(data / TABLE), origin, files or {})
    write_json(data / NAME, asdict(record))
    return record


def read_download(data: Path) -> DownloadRecord | None:
    """The record of the download into ``data``, None if there is none. Raises KitError if it is broken."""
    path = data / NAME
    if not path.exists():
        return None
    return read_record(path, DownloadRecord, f"delete {path}, and run `invoke download` again")


def downloaded_slug(workspace: Path) -> str | None:
    """The slug of the competition that `invoke download` recorded in ``WORKSPACE/data``, None without a record."""
    record = read_download(workspace / "data")
    return None if record is None else record.slug


def has_own_table(data: Path) -> bool:
    """Whether train.csv is the organisers' own file, line ends and encoding aside."""
    record = read_download(data)
    if record is None or record.origin == HAND or not (data / TABLE).is_file():
        return False
    return has_sha256(data / TABLE, record.table_sha256)
