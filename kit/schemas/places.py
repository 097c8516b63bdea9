"""Where the files of an archive or a folder belong in data/, from their names alone.

Organisers pack them at the top, in a folder more, with ``Train`` for ``train``, or with images in deeper folders.
"""

from __future__ import annotations

from collections.abc import Iterable

from kit.schemas.file_names import (
    COMPETITION_FILES,
    IMAGE_SUFFIXES,
    MAPPING,
    TABLE,
    TEST,
    TRAIN,
    entry_like,
    is_companion,
    zipped_entry,
)


def enclosing_folder(names: Iterable[str]) -> str:
    """The folder of an archive that has the competition's files, "" for its top, from the paths of all files.

    It is the only uppermost folder that has train.csv, alone or in a zip; "" if there is none, or several, or if
    the other files lie elsewhere: then train.csv alone is out of its place.
    """
    kept = [name for name in names if not is_companion(name)]
    folders = {name.rpartition("/")[0] for name in kept if _is_table(name)}
    highest = min((_depth(folder) for folder in folders), default=0)
    found = [folder for folder in folders if _depth(folder) == highest]
    if not highest or len(found) > 1:
        return ""
    for outer in (found[0], found[0].rpartition("/")[0]):  # the table may lie among the images
        if _has_others(
            name.removeprefix(f"{outer}/") for name in kept if not outer or name.startswith(f"{outer}/")
        ):
            return outer
    are_elsewhere = _has_others(name for name in kept if not name.startswith(f"{found[0]}/"))
    return "" if are_elsewhere or entry_like(found[0].rpartition("/")[2]) else found[0]


def placed(names: Iterable[str]) -> dict[str, str]:
    """The path in data/ of each file of an archive, by its path there; desktops' companions are left out.

    The folder around all is taken off; near names become the names; a table that lies alone in a folder, and images
    that lie together in a folder of train/ or test/, move up. Two files may get one path: then the archive has two
    of them. Whatever else there is keeps its path.
    """
    kept = [name for name in names if not is_companion(name)]
    outer = enclosing_folder(kept)
    goals = {name: name.removeprefix(f"{outer}/") if outer else name for name in kept}
    for entry in COMPETITION_FILES:
        goals = _with_name(goals, entry)
    for table in (MAPPING, TABLE):
        goals = _with_table(goals, table)
    for folder in (TRAIN, TEST):
        goals = _with_images(goals, folder)
    return goals


def is_image(name: str) -> bool:
    """Whether a path ends as an image's."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def folder_of_images(names: Iterable[str], folder: str) -> str:
    """The one folder in which all images of a folder lie, itself or a deeper one; "" if it has none, or several."""
    parents = {name.rpartition("/")[0] for name in names if name.startswith(f"{folder}/") and is_image(name)}
    return parents.pop() if len(parents) == 1 else ""


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0


def _is_table(name: str) -> bool:
    """Whether a path is train.csv's, under a near name or in a zip."""
    if not name.lower().endswith((".csv", ".txt", ".zip")):  # of images there are many
        return False
    last = name.rpartition("/")[2]
    return TABLE in (entry_like(last), zipped_entry(last))


def _has_others(names: Iterable[str]) -> bool:
    """Whether one of the paths begins with another file or folder of the competition than train.csv."""
    tops = {name.split("/", 1)[0] for name in names}
    return any((entry_like(top) or zipped_entry(top)) not in ("", TABLE) for top in tops)


def _with_name(goals: dict[str, str], entry: str) -> dict[str, str]:
    """The paths, with a near name at the top written as the competition writes it, if there is one alone."""
    tops = {goal.split("/")[0] for goal in goals.values()}
    images = {goal.split("/")[0] for goal in goals.values() if "/" in goal and is_image(goal)}
    files = {goal for goal in goals.values() if "/" not in goal}
    near = [top for top in (images if entry in (TRAIN, TEST) else files) if entry_like(top) == entry]
    if entry in tops or len(near) != 1:
        return goals
    return {
        name: entry + goal.removeprefix(near[0]) if goal.split("/")[0] == near[0] else goal
        for name, goal in goals.items()
    }


def _with_table(goals: dict[str, str], table: str) -> dict[str, str]:
    """The paths, with a table that lies alone in a folder moved up, unless there is one at the top."""
    at_top = [
        goal for goal in goals.values() if "/" not in goal and table in (entry_like(goal), zipped_entry(goal))
    ]
    alone = [
        name
        for name, goal in goals.items()
        if goal.count("/") == 1 and not is_image(goal) and entry_like(goal.split("/")[1]) == table
    ]
    return goals if at_top or len(alone) != 1 else goals | {alone[0]: table}


def _with_images(goals: dict[str, str], folder: str) -> dict[str, str]:
    """The paths, with the files of the folder that has all images moved up."""
    deeper = folder_of_images(goals.values(), folder)
    if deeper in ("", folder):
        return goals
    return {
        name: folder + goal.removeprefix(deeper) if goal.startswith(f"{deeper}/") else goal
        for name, goal in goals.items()
    }
