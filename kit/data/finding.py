"""What a check of the audit finds: its level, its name, its words and a row for each case."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

LEVELS = FAULT, WARNING, NOTE = "fault", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """The result of a check: level, name of the check, description, advice, and a row for each case."""

    level: str
    check: str
    text: str
    do: str
    rows: pd.DataFrame


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun: ``1 box``, ``2,000 boxes``; the plural ends in s unless it is given."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
