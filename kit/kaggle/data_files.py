"""The files in data/ by path and size: what is there, what differs from a list, what the user changed.

Hidden files and desktops' companions are left out of a comparison: they come with folders, and so with archives.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from kit.core.errors import KitError, first_few
from kit.core.text_files import has_sha256, possible_sizes
from kit.data.provenance import KAGGLE, NAME, DownloadRecord
from kit.schemas.file_names import COMPETITION_FILES, MAPPING, TABLE, is_companion
from kit.schemas.misplaced import misplaced_files


def exists(path: Path) -> bool:
    """Whether there is a file, a folder or a link, even one that leads nowhere."""
    return path.exists() or path.is_symlink()


def present_entries(data: Path) -> list[str]:
    """Those of the competition's files and folders that are in data/."""
    return [name for name in COMPETITION_FILES if exists(data / name)]


def top_entries(files: Iterable[str]) -> list[str]:
    """The first component of each path, once, in the order in which these appear in data/; others come first."""
    names = sorted({path.split("/")[0] for path in files})
    order = {name: index for index, name in enumerate(COMPETITION_FILES)}
    return sorted(names, key=lambda name: order.get(name, -1))


def file_sizes(folder: Path, names: Iterable[str], with_hidden: bool = False) -> dict[str, int]:
    """Sizes in bytes of the files under these names of a folder, by their paths in it.

    Links are followed; the size of one that leads nowhere is -1.
    """
    sizes = {}
    for name in names:
        path = folder / name
        if path.is_file():
            sizes[name] = path.stat().st_size
        for parent, _, files in os.walk(path):
            for file in files:
                inner = Path(parent) / file
                if with_hidden or not file.startswith("."):
                    sizes[inner.relative_to(folder).as_posix()] = inner.stat().st_size if inner.exists() else -1
    return sizes


def differences(expected: Mapping[str, int], actual: Mapping[str, int]) -> list[str]:
    """How two lists of files differ, a text for each path; hidden files and desktops' companions are left out."""
    return lacking(expected, actual) + [f"{name}: not in the list" for name in unlisted(expected, actual)]


def unlisted(expected: Mapping[str, int], actual: Mapping[str, int]) -> list[str]:
    """The paths that only the second list has."""
    return sorted(set(_without_hidden(actual)) - set(expected))


def lacking(expected: Mapping[str, int], actual: Mapping[str, int]) -> list[str]:
    """The files of a list that another one lacks, or has with another size: a text for each path."""
    expected, actual = _without_hidden(expected), _without_hidden(actual)
    missing = [f"{name}: missing" for name in sorted(set(expected) - set(actual))]
    resized = [
        f"{name}: {actual[name]} bytes instead of {size}"
        for name, size in sorted(expected.items())
        if actual.get(name, size) != size
    ]
    return missing + resized


def with_line_ends_of(expected: Mapping[str, int], actual: Mapping[str, int], data: Path) -> dict[str, int]:
    """The sizes of files, those of tables as expected if they differ only by line ends or encoding."""
    saved_anew = {
        name: expected[name]
        for name in (TABLE, MAPPING)
        if name in expected and (data / name).is_file() and expected[name] in possible_sizes(data / name)
    }
    return {**actual, **saved_anew}


def require_as_recorded(data: Path, record: DownloadRecord, slug: str) -> None:
    """Raise KitError if data/ holds another competition than ``slug``, or a file differs from the record."""
    if record.slug != slug:
        replace = "--force to replace it" if record.origin == KAGGLE else f"move what {data} holds away, {NAME} too"
        do = f"choose another folder with --workspace, or {replace}"
        raise KitError(f"{data} to hold {slug}", f"{record.slug}", do)
    sizes = file_sizes(data, top_entries(record.files))
    faults = differences(record.files, with_line_ends_of(record.files, sizes, data))
    if not faults and not has_sha256(data / TABLE, record.table_sha256):
        faults = [f"{TABLE}: other content"]
    if faults:
        do = "move away what was changed or added; then `invoke download --force` fetches all files anew"
        if record.origin != KAGGLE:
            do = f"put them back; or, if the change is yours, delete {data / NAME} and call again"
        if hint := misplaced_files(data):
            do = f"{hint}; or {do}"
        raise KitError(f"the files in {data} as `invoke download` left them", first_few(faults, separator="; "), do)


def require_unchanged(data: Path, files: Mapping[str, int], table_sha256: str) -> None:
    """Raise KitError if the user added or changed a file where these would be replaced: it is never deleted."""
    sizes = file_sizes(data, top_entries(files), with_hidden=True)
    changed = [name for name, size in sorted(sizes.items()) if files.get(name) != size and not is_companion(name)]
    if TABLE in sizes and TABLE not in changed and not has_sha256(data / TABLE, table_sha256):
        changed.append(TABLE)
    if changed:
        raise KitError(
            f"nothing in {data} that `invoke download` did not bring, or that was changed since",
            first_few(changed, separator="; "),
            "move these away, then call again: --force would delete them",
        )


def would_overwrite(data: Path, names: Iterable[str], otherwise: str = "") -> KitError:
    """The error for files in data/ that a download would overwrite; ``otherwise`` is a second way out."""
    do = f"move these away, then call again{otherwise}"
    return KitError(f"nothing in {data} that `invoke download` did not bring", ", ".join(names), do)


def _without_hidden(sizes: Mapping[str, int]) -> dict[str, int]:
    return {
        path: size
        for path, size in sizes.items()
        if not path.split("/")[-1].startswith(".") and not is_companion(path)
    }
