"""The record of an import, as ``data/import/import.json`` holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RECORD = "import"  # the folder in data/


@dataclass(frozen=True)
class ImportRecord:
    """``data/import/import.json``: what was imported, and the state of the source."""

    form: str
    source: str
    kit_version: str
    settings: Mapping[str, str | int | float]
    source_sha256: str
    tables: Mapping[str, str]  # SHA-256 by path in the source
    train_images: int
    test_images: int
    boxes: int
    notes: tuple[str, ...]


def record_path(data: Path) -> Path:
    """Where the record of what was imported into a folder ``data`` lies."""
    return data / RECORD / "import.json"
