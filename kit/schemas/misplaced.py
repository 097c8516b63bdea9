"""What a user has put into data/ under near names, in archives or in folders more, and what to do about each."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.core.errors import first_few
from kit.schemas.file_names import COMPETITION_FILES, MAPPING, TABLE, TEST, TRAIN, entry_like, is_companion
from kit.schemas.places import enclosing_folder, folder_of_images, is_image, placed

_ARCHIVE = re.compile(r"\.(zip|7z|rar|tar|tgz|tbz2|txz|(tar\.)?(gz|bz2|xz|zst))$", re.IGNORECASE)
_ENCRYPTED = 0x1
_A_PAGE = "an HTML page, as a site sends it without a log-in"
_PAGE, _START_BYTES = (b"<!doctype", b"<html"), 512


@dataclass(frozen=True)
class Misplaced:
    """A file or folder of data/, what to do about it, and whether it is the competition's by name or content."""

    name: str
    do: str
    is_certain: bool = True


def misplaced_files(data: Path) -> str:
    """What to do about files that a user put into ``data`` in another form; "" if there are none."""
    return "; ".join(one.do for one in misplaced(data))


def misplaced(data: Path) -> list[Misplaced]:
    """Files and folders of ``data`` that may be the competition's in another form, by name.

    Looked for is only what is not there: near names, zips and other archives, a folder more, images in
    deeper folders, a table that lies in another folder. Nothing is read but names and the ends of zips.
    """
    bare = [entry for entry in (TRAIN, TEST) if (data / entry).is_dir() and not _has_images(data / entry)]
    deeper = [entry for entry in bare if any(is_image(path.name) for path in (data / entry).rglob("*"))]
    absent = [entry for entry in COMPETITION_FILES if entry in {*bare} - {*deeper} or not (data / entry).exists()]
    found: list[Misplaced | None] = [
        Misplaced(table, f"{table} is {_A_PAGE}: delete it and fetch it anew")
        for table in (MAPPING, TABLE)
        if _is_page(data / table)
    ]
    if not data.is_dir() or not (absent or deeper):
        return [one for one in found if one]
    tops = [
        path for path in sorted(data.iterdir()) if not path.name.startswith(".") and not is_companion(path.name)
    ]
    unnamed = []  # folders of images that no name gives to train/ or test/
    for path in tops:
        if path.is_dir():
            found.append(_folder(path, data, absent, deeper))
            unnamed += [] if found[-1] else _unnamed(path, data)
        elif _ARCHIVE.search(path.name):
            found.append(_archive(path, data, absent))
        elif entry_like(path.name) in absent and entry_like(path.name) in (MAPPING, TABLE):
            found.append(Misplaced(path.name, f"rename {path} to {data / entry_like(path.name)}"))
    if unnamed and (do := _sorted(f"the images in {first_few(unnamed, 3)}", data, absent)):
        names = first_few((path.relative_to(data).parts[0] for path in unnamed), 3)
        found.append(Misplaced(names, do, is_certain=False))
    return [one for one in found if one and one.do]


def _folder(folder: Path, data: Path, absent: Sequence[str], deeper: Sequence[str]) -> Misplaced | None:
    names = [path.relative_to(data).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = [name for name in names if not is_companion(name)]
    images = folder_of_images(names, folder.name)
    if folder.name in deeper:
        return Misplaced(folder.name, f"move the images in {data / images} up into {folder}") if images else None
    if outer := enclosing_folder(names) if TABLE in absent else "":
        return Misplaced(folder.name, f"move what is in {data / outer} up into {data}")
    steps = []
    for table in (MAPPING, TABLE):
        alone = [name for name in names if name.count("/") == 1 and entry_like(name.split("/")[1]) == table]
        if table in absent and len(alone) == 1:
            steps.append(f"move {data / alone[0]} to {data / table}")
    if entry_like(folder.name) in absent and any(map(is_image, names)):
        goal = data / entry_like(folder.name)
        steps.append(f"move what is in {folder} into {goal}" if goal.exists() else f"rename {folder} to {goal}")
    return Misplaced(folder.name, "; ".join(steps)) if steps else None


def _unnamed(folder: Path, data: Path) -> list[Path]:
    """The folder in which all images of another folder than train/ and test/ lie, if there is one."""
    names = [path.relative_to(data).as_posix() for path in folder.rglob("*") if path.is_file()]
    images = folder_of_images((name for name in names if not is_companion(name)), folder.name)
    return [data / images] if images and folder.name not in COMPETITION_FILES else []


def _archive(path: Path, data: Path, absent: Sequence[str]) -> Misplaced | None:
    """What to do about an archive; None if nothing is absent. A zip of other files has no advice."""
    stem = _ARCHIVE.sub("", path.name)
    named = entry_like(stem) or (MAPPING if entry_like(f"{stem}.csv") == MAPPING else "")
    if not absent:
        return None
    if path.suffix.lower() != ".zip":
        goal = f"{data} holds {', '.join(absent)}, if it has them"
        if named:
            goal = f"its images lie in {data / named}" if named in (TRAIN, TEST) else f"{data / named} is there"
        is_kept = named and named not in absent  # beside what was unpacked from it
        return None if is_kept else Misplaced(path.name, f"unpack {path.name} so that {goal}", bool(named))
    try:
        with zipfile.ZipFile(path) as opened:
            entries = [one for one in opened.infolist() if not one.is_dir() and not is_companion(one.filename)]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        what = _A_PAGE if _is_page(path) else "no whole zip archive"
        return Misplaced(path.name, f"{path.name} is {what}: delete it and fetch it anew", bool(named))
    names = [one.filename.replace("\\", "/") for one in entries]
    outside = next((name for name in names if name.startswith("/") or ".." in name.split("/")), "")
    if outside:
        do = f"{path.name} holds paths that leave its folder, such as {outside}: delete it and fetch it anew"
        return Misplaced(path.name, do, bool(named))
    unpack = f"unpack {path.name}"
    if any(one.flag_bits & _ENCRYPTED for one in entries):
        unpack += ", which needs its password,"
    do, is_certain = _unpacking(unpack, names, data, named, absent)
    return Misplaced(path.name, do, is_certain)


def _unpacking(
    unpack: str, names: Sequence[str], data: Path, named: str, absent: Sequence[str]
) -> tuple[str, bool]:
    """The advice for a zip ``named`` after a file of data/, by the names that it holds; "" if it is of no use.

    And whether it is the competition's.
    """
    if (outer := enclosing_folder(names)) and TABLE in absent:
        return f"{unpack} in {data}, and move what is in its folder {outer} up into {data}", True
    goals = {name: goal for name, goal in placed(names).items() if goal.split("/")[0] in absent}
    if goals:
        moves = dict(_move(name, goal) for name, goal in goals.items() if name != goal)
        steps = [f", and move {data / old} to {data / new}" for old, new in moves.items()]
        return f"{unpack} in {data}{''.join(steps)}", True
    parents = {name.rpartition("/")[0] for name in names if is_image(name)}
    if not parents or (named and named not in absent):
        return "", False
    deeper = parents.pop() if len(parents) == 1 else ""
    images = f"the images in its folder {deeper}" if deeper else "its images"
    if not named:
        sorting = _sorted(images, data, absent)
        return f"{unpack}, and {sorting}" if sorting else "", False
    return f"{unpack}, and move {images} into {data / named}" if deeper else f"{unpack} into {data / named}", True


def _move(name: str, goal: str) -> tuple[str, str]:
    """From where to where a file moves: the folder of an image, the file itself at the top."""
    return (name.rpartition("/")[0], goal.rpartition("/")[0]) if "/" in goal else (name, goal)


def _sorted(images: str, data: Path, absent: Sequence[str]) -> str:
    """Advice for images that no name gives to train/ or test/; "" if both are there."""
    tables = {TRAIN: TABLE, TEST: MAPPING}
    goals = [f"those that {tables[entry]} names into {data / entry}" for entry in (TRAIN, TEST) if entry in absent]
    return f"move {images}: {' and '.join(goals)}" if goals else ""


def _is_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_START_BYTES).lstrip().lower().startswith(_PAGE)
    except OSError:
        return False


def _has_images(folder: Path) -> bool:
    return any(is_image(path.name) and path.is_file() for path in folder.iterdir())
