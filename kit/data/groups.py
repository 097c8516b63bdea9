"""``data/groups.csv``: which images show one patient, if their names do not say so.

The name of a group means nothing: `import` writes hashes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from kit.core.errors import first_few
from kit.schemas.csv_text import Fault, TableError, read_cells
from kit.schemas.row_checks import RowCheck, failed_checks, repeated_rows

GROUPS = "groups.csv"
GROUP_COLUMNS = ("image_id", "group")
_FIX = "correct the file, or delete it: then data.patient_pattern alone tells patients apart"
log = logging.getLogger("kit")


def read_groups(data: Path) -> dict[str, str]:
    """The group of each image that ``groups.csv`` in ``data`` names; empty if there is no such file.

    Raises TableError for another header, an image named twice, or an empty cell.
    """
    path = data / GROUPS
    if not path.exists():
        return {}
    cells = read_cells(path, _FIX)
    if not set(GROUP_COLUMNS) <= set(cells.header):
        fault = Fault(path, cells.header_line, ",".join(cells.header), f"the header {','.join(GROUP_COLUMNS)}")
        raise TableError(path, [fault], _FIX)
    filled = RowCheck(
        "an image_id and a group, both not empty", GROUP_COLUMNS,
        lambda rows: (rows["image_id"].str.strip() != "") & (rows["group"].str.strip() != ""),
    )  # fmt: skip
    faults = [*cells.faults, *failed_checks(path, cells.table, (filled,))]
    faults += repeated_rows(path, cells.table, ("image_id",), "an image_id that no earlier line has")
    if faults:
        raise TableError(path, faults, _FIX)
    return dict(zip(cells.table["image_id"], cells.table["group"], strict=True))


def warn_of_missing(groups: Mapping[str, str], image_ids: Collection[str]) -> None:
    """Log which images ``groups.csv`` leaves out, if it names others."""
    missing = sorted(set(image_ids) - set(groups)) if groups else []
    if missing:
        log.warning(
            "%s leaves out %d of %d training images, whose patients follow from data.patient_pattern: %s",
            GROUPS, len(missing), len(image_ids), first_few(missing),
        )  # fmt: skip
