"""The names of a competition's files in ``WORKSPACE/data``, and of files that desktops leave beside them."""

from __future__ import annotations

from pathlib import Path

TRAIN, TEST = "train", "test"  # folders of images
TABLE = "train.csv"
MAPPING = "ID_to_Image_Mapping.csv"
COMPETITION_FILES = (TRAIN, TEST, MAPPING, TABLE)  # in the order in which they appear: the table completes them
ZIPS = {  # what may hold one of them; train.zip holds the folder
    TRAIN: ("train.zip",),
    TEST: ("test.zip",),
    MAPPING: (f"{MAPPING}.zip", MAPPING.replace(".csv", ".zip")),
    TABLE: (f"{TABLE}.zip",),
}
_COMPANIONS = {"__macosx", ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}


def is_companion(path: str) -> bool:
    """Whether macOS or Windows left a file there: ``._NAME`` beside every NAME, ``__MACOSX/``, ``Thumbs.db``.

    Such a file is nobody's data, whatever its suffix.
    """
    return any(part.startswith("._") or part.lower() in _COMPANIONS for part in path.split("/"))


def misplaced_files(data: Path) -> str:
    """What to do about files that a user put into ``data`` in zips, or in a folder more; "" if there are none."""
    absent = [entry for entry in COMPETITION_FILES if not (data / entry).exists()]
    zips = [name for entry in absent for name in ZIPS[entry] if (data / name).is_file()]
    if zips:
        return f"unpack {' and '.join(zips)} in {data}"
    folders = [path.parent for path in sorted(data.glob(f"*/{TABLE}")) if not path.parent.name.startswith(".")]
    return f"move what is in {folders[0]} up into {data}" if folders and TABLE in absent else ""
