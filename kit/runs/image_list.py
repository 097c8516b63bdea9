"""A text file that names images of ``train/``, one per line: those that a detector made elsewhere held out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kit.core.text_files import read_text
from kit.schemas.csv_text import LINE, Fault
from kit.schemas.file_names import TEST
from kit.schemas.foreign.content import by_cause, folder_and_name
from kit.schemas.missing_images import named_otherwise
from kit.schemas.tables import raise_faults

_DO = "name the images of train/ that were held out, one a line, as their files are named"
log = logging.getLogger("kit")


def read_image_list(path: Path, known: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The images that the file names, sorted.

    A name may have a folder before it (but test/) and lack its ending, if one image alone has it; the log says so.

    Args:
        path: The text file.
        known: The images of ``train/``.
        folder: The folder ``train/`` itself.

    Raises:
        TableError: Other names, with one fault for each cause.
    """
    lines = read_text(path, f"{path}, a text file with an image_id a line", "name another --held-out").splitlines()
    texts = [(line.strip(), number) for number, line in enumerate(lines, start=1) if line.strip()]
    named = pd.DataFrame(texts, columns=["image_id", LINE])
    halves = named["image_id"].map(lambda text: folder_and_name(text)[0].lower())
    images = (
        named["image_id"].map(lambda text: folder_and_name(text)[1]).map(_meanings(known)).where(halves != TEST)
    )
    unknown = named[images.isna()]
    faults, rest = named_otherwise(path, unknown[halves[unknown.index] != TEST], known, folder)
    others = pd.concat([unknown[halves[unknown.index] == TEST], rest])
    faults += by_cause(
        [
            Fault(path, line, name, "the file name of an image of train/")
            for name, line in others[["image_id", LINE]].itertuples(index=False, name=None)
        ]
    )
    raise_faults(path, named, faults, _DO)
    otherwise = named.loc[images != named["image_id"], "image_id"]
    if len(otherwise):
        log.info("%s: %d images named otherwise than their files, such as %s", path.name, len(otherwise),
                 otherwise.iloc[0])  # fmt: skip
    return tuple(sorted(set(images)))


def _meanings(known: Sequence[str]) -> dict[str, str]:
    """The image that a text without folders means: its file name, or the stem that no other image has."""
    stems = Counter(Path(name).stem for name in known)
    return {Path(name).stem: name for name in known if stems[Path(name).stem] == 1} | dict(
        zip(known, known, strict=True)
    )
