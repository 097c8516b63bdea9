"""Which image of which half (train or test) a row of adopted detections names.

Other tools write names with their folders or without their endings, and both halves may have images of one name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from kit.core.errors import first_few
from kit.schemas.csv_text import Fault, TableError
from kit.schemas.file_names import TEST, TRAIN
from kit.schemas.foreign.content import by_cause, folder_and_name
from kit.schemas.image_headers import ImageFacts
from kit.schemas.row_checks import with_image_facts

Halves = Mapping[str, Mapping[str, ImageFacts]]  # train and test: their images by name
_ONE_PICTURE = (
    "pictures of several folders would be taken for one: leave out the rows of those that are not in this "
    "competition, or write one name for the same picture, and adopt the file again"
)
log = logging.getLogger("kit")


def with_halves(path: Path, table: pd.DataFrame, halves: Halves) -> pd.DataFrame:
    """The rows with their half in ``part``, and with ``image_id`` as the images are named.

    A name may lack its ending if one image alone has it, and have a folder, which names the half if it is called
    train or test and that half has all images that are named in it. Without such a folder or ``part`` the half is
    the only one that has the image; empty if both or none do. A ``part`` that has no such image stays, and the
    image is named as in the other half. Raises TableError if names in several folders mean one image.
    """
    of_stem = {half: _by_stem(images) for half, images in halves.items()}
    pairs = list(zip(table["image_id"], table["part"], strict=True))
    folders = _folders_of_halves(dict.fromkeys(pairs), halves, of_stem)

    def identified(text: str, part: str) -> tuple[str, str]:
        name = folder_and_name(text)[1]
        preferred = [half for half in halves if half == (part or folders.get(_folders(text), ""))]
        for among in (preferred, list(halves)):
            names = {name} if any(name in halves[half] for half in among) else set()
            names = names or set().union(*(of_stem[half].get(name, set()) for half in among))
            if len(names) == 1:
                (whole,) = names
                having = [half for half in among if whole in halves[half]]
                return whole, part or (having[0] if len(having) == 1 else "")
        return text, part

    result = {pair: identified(*pair) for pair in dict.fromkeys(pairs)}
    if merged := _merged_images(path, result):
        raise TableError(path, by_cause(merged), _ONE_PICTURE)
    changed = {text: name for (text, _), (name, _) in result.items() if text != name}
    if changed and path.is_file():
        text, name = next(iter(changed.items()))
        more = f" and so on ({len(changed)} names)" if len(changed) > 1 else ""
        log.info("%s: images named otherwise than their files: %s is taken as %s%s", path.name, text, name, more)
    return table.assign(image_id=[result[pair][0] for pair in pairs], part=[result[pair][1] for pair in pairs])


def with_facts(table: pd.DataFrame, halves: Halves) -> pd.DataFrame:
    """The rows with the facts of their image: that of their part, or of the other half if the part has none."""
    everywhere = {**halves[TEST], **halves[TRAIN]}
    filled = [
        with_image_facts(rows, {**everywhere, **halves.get(str(part), {})}) for part, rows in table.groupby("part")
    ]
    return pd.concat(filled).sort_index() if filled else with_image_facts(table, {})


def pictures(table: pd.DataFrame, halves: Halves) -> pd.Series:
    """The image of each row in its half; None if its half is not known, or has no such image."""
    found = [halves.get(part, {}).get(name) for name, part in zip(table["image_id"], table["part"], strict=True)]
    return pd.Series(found, index=table.index, dtype=object)


def _folders(text: str) -> str:
    return text.replace("\\", "/").rpartition("/")[0]


def _folders_of_halves(
    pairs: Iterable[tuple[str, str]], halves: Halves, of_stem: Mapping[str, Mapping[str, set[str]]]
) -> dict[str, str]:
    """The half of each folder called train or test, in any case, that has all images that are named in it.

    People have folders of these names for other purposes. An image of neither half says nothing.
    """
    half_of: dict[str, str] = {}
    others: set[str] = set()
    for text, part in pairs:
        (folder, name), path = folder_and_name(text), _folders(text)
        if folder.lower() not in halves:
            continue
        half_of[path] = folder.lower()
        having = [half for half, images in halves.items() if name in images or name in of_stem[half]]
        if (part or half_of[path]) != half_of[path] or (having and half_of[path] not in having):
            others.add(path)
    return {path: half for path, half in half_of.items() if path not in others}


def _merged_images(path: Path, result: Mapping[tuple[str, str], tuple[str, str]]) -> list[Fault]:
    """A fault for each image of a half that names in several folders mean: two sets may share a name."""
    by_folder: dict[tuple[str, str], dict[str, str]] = {}
    for (text, _), image in result.items():
        if folder := _folders(text):
            by_folder.setdefault(image, {}).setdefault(folder, text)
    return [
        Fault(path, None, first_few(names.values()), f"{name} in one folder only")
        for (name, _), names in by_folder.items()
        if len(names) > 1
    ]


def _by_stem(images: Iterable[str]) -> dict[str, set[str]]:
    stems: dict[str, set[str]] = {}
    for name in images:
        stems.setdefault(Path(name).stem, set()).add(name)
    return stems
