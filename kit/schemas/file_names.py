"""The names of a competition's files in ``WORKSPACE/data``, near names, and files that desktops leave there."""

from __future__ import annotations

import re
import unicodedata

TRAIN, TEST = "train", "test"  # folders of images
TABLE = "train.csv"
MAPPING = "ID_to_Image_Mapping.csv"
COMPETITION_FILES = (TRAIN, TEST, MAPPING, TABLE)  # in the order in which they appear: the table completes them
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_COMPANIONS = {"__macosx", ".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}
_COPY = re.compile(r"\s*(\(\d+\)|- copy)(?=\.csv$|$)")  # as browsers and Windows name a second one
_SUFFIXES = re.compile(r"(\.csv)+(\.txt)?$")
_SEPARATORS = re.compile(r"[\s_-]+")
_IMAGES = re.compile(r"(images?)?(train|test)(ing)?(images?|imgs?|data|set|pngs?)*")


def is_companion(path: str) -> bool:
    """Whether macOS or Windows left a file there: ``._NAME`` beside every NAME, ``__MACOSX/``, ``Thumbs.db``.

    Such a file is nobody's data, whatever its suffix.
    """
    return any(part.startswith("._") or part.lower() in _COMPANIONS for part in path.split("/"))


def entry_like(name: str) -> str:
    """The competition's file or folder that a name means, "" for none.

    ``Train``, ``train_images``, ``TRAIN.CSV``, ``train (1).csv`` and ``ID to Image Mapping.csv`` are near names.
    """
    text = unicodedata.normalize("NFC", name).casefold().strip()
    text = _SEPARATORS.sub("", _SUFFIXES.sub(".csv", _COPY.sub("", text)))
    tables = {_SEPARATORS.sub("", table.casefold()): table for table in (MAPPING, TABLE)}
    images = _IMAGES.fullmatch(text)
    return tables.get(text) or (images[2] if images else "")


def zipped_entry(name: str) -> str:
    """The competition's file or folder that a zip is named after, "" for none and for what is no zip."""
    stem, dot, suffix = name.strip().rpartition(".")
    if not dot or suffix.lower() != "zip":
        return ""
    return entry_like(stem) or (MAPPING if entry_like(f"{stem}.csv") == MAPPING else "")
