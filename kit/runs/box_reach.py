"""Whether boxes are of pictures of another size, by how far they reach: this needs no true box near them.

Boxes of a resized picture end at its border at the latest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.schemas.csv_text import Fault
from kit.schemas.file_names import TEST, TRAIN

_LEAST_IMAGES = 8  # with boxes, in either half
_CHANCE = 1e-4  # that so many images would all end as early
_NEVER, _CLEARLY = 0.7, 0.95  # of the usual reach: less is another unit, or worth a word
_OVER = 1.05  # of a side: a box ends clearly beyond its image
_MANY, _HARDLY_ANY = 0.1, 0.01
log = logging.getLogger("kit")


def reach_faults(path: Path, rows: pd.DataFrame, truth: pd.DataFrame, expected: str, do: str) -> list[Fault]:
    """One fault for boxes of a half that all end much too early, or often far beyond their images.

    Too early: before .7 of where boxes usually end, across and down, if as many images would do so with a chance
    below 1 in 10,000. Usual are the true boxes; for test images also the detections on images of ``train/`` (as
    many of the surest per image as in the test). Above .7 or along one side a message says so: the halves may
    differ in truth, as those of FracAtlas do (.84).

    Args:
        path: The file.
        rows: Its rows: image_id, part, corners, score, width_px and height_px above 0.
        truth: The true boxes of ``train/``.
        expected: What boxes should be.
        do: The advice.
    """
    ours, theirs = rows[rows["part"] == TRAIN], rows[rows["part"] == TEST]
    sides = ours.drop_duplicates("image_id").set_index("image_id")[["width_px", "height_px"]]
    true = truth[["image_id", *CORNERS]].join(sides, on="image_id", how="inner")
    if min(len(sides), true["image_id"].nunique()) < _LEAST_IMAGES:
        return []
    words = ""
    if _ends_early(ours, [_reach(true)]):
        words = _ends(ours, true, f"images of {TRAIN}/", "the true ones")
    elif theirs["image_id"].nunique() >= _LEAST_IMAGES:
        count = int(np.ceil(theirs.groupby("image_id").size().median()))
        surest = ours.sort_values("score", ascending=False, kind="stable").groupby("image_id").head(count)
        usual = [_reach(surest), _reach(true)]
        words = _ends(theirs, surest, f"images of {TEST}/", f"those on images of {TRAIN}/")
        if _share_over(theirs) >= _MANY and _share_over(ours) < _HARDLY_ANY:
            shares = f"{_share_over(theirs):.0%} of the boxes on images of {TEST}/ end far beyond them"
            words = f"{shares}, {_share_over(ours):.0%} on images of {TRAIN}/"
        elif not _ends_early(theirs, usual):
            if _ends_early(theirs, usual, _CLEARLY, any_side=True):
                log.warning("%s: %s; if they are of resized pictures, %s", path.name, words, do)
            words = ""
    return [Fault(path, None, words, expected, do)] if words else []


def _ends_early(
    rows: pd.DataFrame, usual: Sequence[np.ndarray], share: float = _NEVER, any_side: bool = False
) -> bool:
    """Whether the boxes end before a share of the ``usual`` reach ((n, 2) each), and hardly by chance."""
    reach = np.unique(_reach(rows), axis=0)  # one box put on every image is one
    farthest = reach.max(axis=0)
    early = farthest < share * usual[0].max(axis=0)
    chance = max(_chance(other, farthest, len(reach)) for other in usual)
    return bool((early.any() if any_side else early.all()) and chance < _CHANCE)


def _ends(rows: pd.DataFrame, others: pd.DataFrame, where: str, of_others: str) -> str:
    (x, y), (other_x, other_y) = _reach(rows).max(axis=0), _reach(others).max(axis=0)
    found = f"boxes on {rows['image_id'].nunique()} {where} that all end before {x:.0%} of the width and {y:.0%} of"
    return f"{found} the height, {of_others} before {other_x:.0%} and {other_y:.0%}"


def _reach(rows: pd.DataFrame) -> np.ndarray:
    """How far the boxes of each image reach, (n, 2): the farthest x_max and y_max as shares of its sides."""
    shares = pd.DataFrame({"x": rows["x_max"] / rows["width_px"], "y": rows["y_max"] / rows["height_px"]})
    return shares.groupby(rows["image_id"]).max().to_numpy(float)


def _share_over(rows: pd.DataFrame) -> float:
    return float(((rows["x_max"] > _OVER * rows["width_px"]) | (rows["y_max"] > _OVER * rows["height_px"])).mean())


def _chance(reach: np.ndarray, farthest: np.ndarray, images: int) -> float:
    """The chance that as many images, drawn from those of ``reach``, all end where ``farthest`` (2,) does."""
    inside = int((reach <= farthest).all(axis=1).sum())
    return float(((inside + 1) / (len(reach) + 1)) ** images)
