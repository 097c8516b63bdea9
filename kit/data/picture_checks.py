"""The audit's checks of pictures: EXIF orientations, inverted grey levels, levels far outside the others, few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from kit.core.errors import first_few
from kit.data.finding import NOTE, WARNING, Finding, counted
from kit.data.images import Levels
from kit.schemas.image_headers import UPRIGHT, ImageFacts

ORIENTATION, INVERTED, OUTLYING = "orientation-tags", "inverted-images", "outlying-levels"
FEW_LEVELS = "few-levels"
# Nine tenths of the pixels of 738 radiographs (NIH and FracAtlas, in 64 x 64 pixels) need 19 levels at least.
_MOST, _NARROW, _WIDE = 0.9, 16, 64
_SHOWN = 3


def orientation_tags(files: Mapping[str, ImageFacts]) -> Finding | None:
    """Images with an EXIF orientation: a warning if it is not applied, else a note."""
    tagged = {name: facts for name, facts in files.items() if facts.tag != UPRIGHT}
    if not tagged:
        return None
    rows = pd.DataFrame(
        [(name, facts.tag, facts.width_px, facts.height_px) for name, facts in tagged.items()],
        columns=["image", "orientation", "width_px", "height_px"],
    )
    text = f"{counted(len(rows), 'image')} of {len(files)} with an EXIF orientation"
    if any(facts.turn == UPRIGHT for facts in tagged.values()):
        return Finding(
            WARNING, ORIENTATION,
            f"{text} that is not applied: viewers turn such pictures, and boxes may be those of turned ones",
            "inspect the picture sheet: if the boxes fit the turned pictures, give --set data.orientation=exif to "
            "audit, train and explore", rows,
        )  # fmt: skip
    return Finding(
        NOTE, ORIENTATION, f"{text}, by which they are turned",
        "the boxes must be those of the turned pictures (data.orientation=exif), as on the picture sheet", rows,
    )  # fmt: skip


def inverted_images(files: Mapping[str, ImageFacts], inverted: Sequence[str]) -> Finding | None:
    """Images whose black and white are exchanged against the rest: a warning, or a note if reading inverts them."""
    if not inverted:
        return None
    rows = pd.DataFrame({"image": list(inverted)})
    text = f"{counted(len(rows), 'image')} of {len(files)} inverted against the rest (black is white)"
    if all(files[name].inverted for name in inverted):
        return Finding(
            NOTE, INVERTED, f"{text}; reading inverts them again",
            "this is data.invert=listed: see the picture sheet", rows,
        )  # fmt: skip
    return Finding(
        WARNING, INVERTED, text,
        "inspect the picture sheet: if it is right, `invoke train --set data.invert=listed` inverts these images "
        "again, in training and in prediction", rows,
    )  # fmt: skip


def outlying_levels(levels: Mapping[str, Levels]) -> Finding | None:
    """16-bit images with a few pixels far outside the levels of the others, which became black or white."""
    rows = pd.DataFrame(
        [(name, it.lowest, it.highest, it.low, it.high, it.outside) for name, it in levels.items() if it.outside],
        columns=["image", "lowest", "highest", "black", "white", "pixels_outside"],
    )
    if rows.empty:
        return None
    return Finding(
        NOTE, OUTLYING,
        f"{counted(len(rows), 'image')} of 16 bits with a few pixels far outside the levels of the others",
        "black and white are the ends of the others' range: a marker or a burnt-in letter would leave them few "
        "grey levels", rows,
    )  # fmt: skip


def few_levels(names: Sequence[str], copies: UInt8[np.ndarray, "n h w"]) -> Finding | None:
    """Images whose pixels have few of the grey levels that they reach, as beside a large marker: a row each.

    Nine tenths of the pixels of the small copy lie within 16 of the 256 levels, and the others at least 64 away.
    """
    rows = []
    for name, copy in zip(names, copies, strict=True):
        ordered = np.sort(copy, axis=None).astype(np.int64)
        most = int(_MOST * len(ordered))
        width = int((ordered[most - 1 :] - ordered[: len(ordered) - most + 1]).min())
        if width < _NARROW and ordered[-1] - ordered[0] >= width + _WIDE:
            rows.append((name, width + 1, int(ordered[0]), int(ordered[-1])))
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["image", "levels", "darkest", "brightest"])
    return Finding(
        WARNING, FEW_LEVELS,
        f"{counted(len(table), 'image')} with nine tenths of the pixels within {_NARROW} of 256 grey levels: "
        f"{first_few(table['image'], _SHOWN)}",
        "look at them: if a large marker, a letter or a plate takes the range, the anatomy is nearly flat: paint "
        "it over with levels of the anatomy, or write these images anew with its range", table,
    )  # fmt: skip
