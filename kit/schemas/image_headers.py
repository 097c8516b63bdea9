"""The images of a folder, from their headers alone: sizes, and the faults of files that cannot be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from kit.core.errors import KitError, reason
from kit.schemas.file_names import is_companion

_FIX = "put the images there, or fetch them anew with `invoke download --force`"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class ImageFacts:
    """An image file: its size, and why it cannot be read (empty if it can)."""

    path: Path
    width_px: int
    height_px: int
    fault: str = ""


def image_names(folder: Path) -> list[str]:
    """The sorted names of the images directly in a folder, without macOS's companions of them (``._NAME``).

    Raises KitError if there is no such folder.
    """
    try:
        return sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not is_companion(entry.name) and not entry.is_dir()
        )
    except OSError as error:
        raise KitError(f"the folder {folder} with images", reason(error), _FIX) from error


def image_headers(folder: Path) -> dict[str, ImageFacts]:
    """The images directly in a folder, by sorted file name, from their headers alone.

    A file that is no image has a ``fault`` and size 0. Raises KitError if there is no such folder.
    """
    return {name: _header(folder / name) for name in image_names(folder)}


def _header(path: Path) -> ImageFacts:
    if path.exists() and not path.is_file():  # opening a pipe would wait without end
        return ImageFacts(path, 0, 0, "it is no file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of bad EXIF data, which kit does not read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                return ImageFacts(path, *image.size)
    except UnidentifiedImageError:
        return ImageFacts(path, 0, 0, "no PNG or JPEG image" if path.stat().st_size else "an empty file")
    # PIL raises SyntaxError, ValueError and other errors for broken files.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError,
            Image.DecompressionBombWarning) as error:  # fmt: skip
        return ImageFacts(path, 0, 0, reason(error))


def image_sizes(facts: Mapping[str, ImageFacts]) -> dict[str, tuple[int, int]]:
    """Width and height in pixels by image_id."""
    return {image_id: (fact.width_px, fact.height_px) for image_id, fact in facts.items()}
