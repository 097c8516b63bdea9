"""A page of pairs of pictures side by side: an image of a workspace, and the one that another training has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.data.duplicates import Prints, common_pictures, take_prints
from kit.data.images import Grey, ImageError, read_picture, resize_longest
from kit.reports.html import write_page
from kit.reports.thumbnails import QUALITIES, THUMB_PX, jpeg_text
from kit.schemas.file_names import TRAIN
from kit.schemas.image_headers import ImageFacts, image_header

PICTURED = 60  # pairs on a page that are shown; of the others there are the names


@dataclass(frozen=True)
class Side:
    """One picture of a pair, and the words under it."""

    text: str
    picture: Grey | None  # None: it cannot be read, or is not shown

    @classmethod
    def of(cls, text: str, image: ImageFacts) -> Side:
        """The picture of a file, as it is read."""
        try:
            return cls.shown(text, read_picture(image))
        except ImageError as error:
            return cls(f"{text} (cannot be read: {error})", None)

    @classmethod
    def shown(cls, text: str, picture: Grey) -> Side:
        """A picture in the size that the page shows: a page keeps no larger ones."""
        return cls(text, resize_longest(picture, THUMB_PX))

    @property
    def jpeg(self) -> str:
        """The picture as a small JPEG in base64; "" if it cannot be read."""
        if self.picture is None:
            return ""
        return jpeg_text(np.ascontiguousarray(self.picture), QUALITIES[0])


@dataclass(frozen=True)
class Pair:
    """Two pictures that show one radiograph; ``kind`` is what the first one is here."""

    kind: str
    own: Side
    seen: Side


def write_seen_page(path: Path, title: str, pairs: Sequence[Pair]) -> Path:
    """Write the page: the pictures of the first 60 pairs, the names of all others; returns ``path``."""
    kinds = [pair.kind for pair in pairs]
    values = {
        "title": title,
        "counts": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "pairs": pairs[:PICTURED],
        "others": [(pair.own.text, pair.seen.text) for pair in pairs[PICTURED:]],
    }
    return write_page(path, "seen_images.html", values)


def workspaces_at_hand(workspace: Path, name: str, weights: str) -> list[Path]:
    """The folders that may be a stage's workspace of that name: around the weights, here, and beside this one."""
    here = workspace.resolve()
    around = [folder.parent for folder in Path(weights).resolve().parents if folder.name == "runs"]
    folders = [folder for folder in (*around, here, here.parent / Path(name).name) if folder.name == name]
    return [folder for folder in dict.fromkeys(folders) if (folder / "data" / TRAIN).is_dir()]


def original(name: str, copy: Grey, folders: Sequence[Path]) -> Grey | None:
    """The picture of that name in the first of the workspaces whose file shows what the small copy shows."""
    wanted = Prints((name,), ("wanted",), copy[None])
    for folder in folders:
        try:
            picture = read_picture(image_header(folder / "data" / TRAIN / Path(name).name).turned())
        except ImageError:
            continue
        if len(common_pictures(wanted, _prints(picture))):
            return picture
    return None


def _prints(picture: Grey) -> Prints:
    return take_prints({"": ""}, lambda _: picture)
