"""The images of a folder, from their headers alone: sizes, EXIF orientations, faults of files that cannot be read.

Viewers turn a picture by its EXIF orientation; the pixels of the file lie unturned.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from kit.core.errors import KitError, reason
from kit.core.files import require_utf8_names
from kit.schemas.file_names import IMAGE_SUFFIXES, TEST, TRAIN, is_companion
from kit.schemas.misplaced import misplaced_files

UPRIGHT = 1  # of the EXIF orientations 1..8; from 5 on width and height change places
_FIRST_ON_ITS_SIDE, _LAST = 5, 8


@dataclass(frozen=True)
class ImageFacts:
    """An image file: its size as it is read, and why it cannot be read (empty if it can).

    ``tag`` is the file's EXIF orientation (1..8, 1 without one), ``turn`` the one that reading applies (1: none);
    ``inverted`` says whether reading exchanges black and white.
    """

    path: Path
    width_px: int
    height_px: int
    fault: str = ""
    tag: int = UPRIGHT
    turn: int = UPRIGHT
    inverted: bool = False

    def turned(self) -> ImageFacts:
        """The same image, turned by its EXIF orientation when it is read."""
        width, height = self.width_px, self.height_px
        if lies_on_its_side(self.tag) != lies_on_its_side(self.turn):
            width, height = height, width
        return replace(self, width_px=width, height_px=height, turn=self.tag)


def lies_on_its_side(orientation: int) -> bool:
    """Whether width and height change places when an EXIF orientation is applied."""
    return orientation >= _FIRST_ON_ITS_SIDE


def exif_orientation(image: Image.Image, every_chunk: bool = True) -> int:
    """The EXIF orientation of an opened image, 1..8; 1 if there is none or it cannot be read.

    With ``every_chunk`` a PNG is decoded for it, since the tag may stand behind the pixels.
    """
    try:
        exif = image.getexif() if every_chunk else Image.Image.getexif(image)
        tag = exif.get(ExifTags.Base.Orientation)
    # Whatever Pillow raises for broken EXIF data, the picture itself may be whole.
    except Exception:
        return UPRIGHT
    return tag if isinstance(tag, int) and UPRIGHT <= tag <= _LAST else UPRIGHT


def image_names(folder: Path) -> list[str]:
    """The sorted names of the images directly in a folder, without macOS's companions of them (``._NAME``).

    Raises KitError if there is no such folder, or if a name is not UTF-8.
    """
    try:
        names = sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not is_companion(entry.name) and not entry.is_dir()
        )
    except OSError as error:
        data = folder.parent
        do = (misplaced_files(data) if folder.name in (TRAIN, TEST) else "") or (
            f"put the images there; or move what {data} holds away, hidden files too, and `invoke download` brings "
            "all files"
        )
        raise KitError(f"the folder {folder} with images", reason(error), do) from error
    require_utf8_names(folder / name for name in names)
    return names


def image_headers(folder: Path, orientation: str = "ignore") -> dict[str, ImageFacts]:
    """The images directly in a folder, by sorted file name, from their headers alone.

    A file that is no image has a ``fault`` and size 0. ``orientation`` is the knob data.orientation: with "exif"
    the sizes are those of the turned pictures. Raises KitError if there is no such folder.
    """
    is_turned = orientation == "exif"
    facts = {name: image_header(folder / name, is_turned) for name in image_names(folder)}
    return {name: fact.turned() for name, fact in facts.items()} if is_turned else facts


def image_header(path: Path, every_chunk: bool = True) -> ImageFacts:
    """The facts of an image file from its header; with ``every_chunk`` a PNG is decoded for its orientation."""
    if path.exists() and not path.is_file():  # opening a pipe would wait without end
        return ImageFacts(path, 0, 0, "it is no file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of bad EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                return ImageFacts(path, *image.size, tag=exif_orientation(image, every_chunk))
    except UnidentifiedImageError:
        return ImageFacts(path, 0, 0, "no PNG or JPEG image" if path.stat().st_size else "an empty file")
    # PIL raises SyntaxError, ValueError and other errors for broken files.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError,
            Image.DecompressionBombWarning) as error:  # fmt: skip
        return ImageFacts(path, 0, 0, reason(error))


def image_sizes(facts: Mapping[str, ImageFacts]) -> dict[str, tuple[int, int]]:
    """Width and height in pixels by image_id."""
    return {image_id: (fact.width_px, fact.height_px) for image_id, fact in facts.items()}
