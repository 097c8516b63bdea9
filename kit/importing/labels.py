"""A set's labels under other names: the user's map, and what is near to the competition's labels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from kit.core.errors import closest_names
from kit.schemas.csv_text import LINE, Fault, TableError, read_cells
from kit.schemas.row_checks import LABEL, failed_checks, repeated_rows

MAP_COLUMNS = ("source", "target")
# Of the competition that kit is for, as in NIH's list of boxes.
COMPETITION_LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltrate", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
)  # fmt: skip
_NEAR = 0.8  # of difflib: Infiltrate and Infiltration .82, Pneumonia and Pneumothorax .67
_FIX = f"correct the file: {','.join(MAP_COLUMNS)}, a label of the set a line; an empty target leaves its boxes out"


def read_label_map(path: Path, labels: Collection[str]) -> dict[str, str]:
    """The target of each label that the file names; "" leaves the label out.

    Raises TableError for another header, a label that the set does not have, one that is named twice, and a target
    that is no label.
    """
    cells = read_cells(path, _FIX)
    if not set(MAP_COLUMNS) <= set(cells.header):
        fault = Fault(path, cells.header_line, ",".join(cells.header), f"the header {','.join(MAP_COLUMNS)}")
        raise TableError(path, [fault], _FIX)
    rows = cells.table
    unknown = rows[~rows["source"].isin(list(labels))]
    faults = [*cells.faults, *repeated_rows(path, rows, ("source",), "a source that no earlier line has")]
    faults += [
        Fault(path, line, source, f"a label of the set; nearest: {closest_names(source, labels)}")
        for line, source in zip(unknown[LINE].tolist(), unknown["source"], strict=True)
    ]
    faults += failed_checks(path, rows[rows["target"] != ""].rename(columns={"target": "label"}), (LABEL,))
    if faults:
        raise TableError(path, faults, _FIX)
    return dict(zip(rows["source"], rows["target"], strict=True))


def mapped(labels: Collection[str], targets: Mapping[str, str]) -> dict[str, str]:
    """The target of every label, sorted: its own name if the map has none."""
    return {label: targets.get(label, label) for label in sorted(labels)}


def suggestion(label: str) -> str:
    """What a label may be in the competition: the label itself, "Infiltrate?", "Nodule or Mass?", or ""."""
    bare = _bare(label)
    alike = [
        name for name in COMPETITION_LABELS if difflib.SequenceMatcher(None, bare, _bare(name)).ratio() >= _NEAR
    ]
    words = [_bare(word) for word in re.split(r"[^A-Za-z]+", label)]
    within = [name for name in COMPETITION_LABELS if _bare(name) in words]
    if label in COMPETITION_LABELS:
        return label
    in_order = sorted(within, key=lambda name: words.index(_bare(name))) or alike
    return f"{' or '.join(in_order)}?" if in_order else ""


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
