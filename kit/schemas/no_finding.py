"""Rows of train.csv that stand for an image without a finding: no corners, or a stand-in box, and no class.

VinBigData and others write them as ``No finding`` with empty corners, their resized copies with 0,0,1,1; others
have zeros, -1s, or the whole image.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit.schemas.csv_text import to_numbers

_LABELS = {
    "",
    "nofinding",
    "nofindings",
    "noabnormality",
    "normal",
    "none",
    "negative",
    "healthy",
    "nan",
    "na",
    "null",
}  # letters and digits alone
_NO_VALUES = {"", "nan", "na", "null"}  # with a box of the whole image, the label was lost
_STAND_INS = tuple([low, low, high, high] for low in (-1.0, 0.0, 1.0) for high in (low, low + 1))
_EMPTY = {
    "",
    "-",
    "nan",
    "na",
    "n/a",
    "#n/a",
    "<na>",
    "null",
    "none",
}  # as people, pandas, NumPy, R and Excel write no value
_OVER = 1.0  # px that a box of the whole image may lack at each border


def has_no_corners(cells: pd.DataFrame) -> pd.Series:
    """Whether all cells of a row are empty, nan or alike; ``cells`` are the texts of the box's four columns."""
    return cells.apply(is_empty).all(axis=1)


def is_empty(cells: pd.Series) -> pd.Series:
    """Whether a text is what a program writes for no value: nothing, nan or alike."""
    return cells.str.strip().str.casefold().isin(_EMPTY)


def says_no_finding(labels: pd.Series) -> pd.Series:
    """Whether a label is such as ``No finding``, whatever its case, blanks and signs."""
    return _are(labels, _LABELS)


def _are(labels: pd.Series, words: set[str]) -> pd.Series:
    return labels.isin(
        [label for label in labels.unique() if "".join(filter(str.isalnum, label.casefold())) in words]
    )


def stands_for_no_finding(labels: pd.Series, cells: pd.DataFrame, sides: pd.DataFrame) -> pd.Series:
    """Whether a row has a label such as ``No finding``, and no corners or those of a stand-in box.

    Stand-ins are k,k,k,k and k,k,k+1,k+1 for k of -1, 0 and 1; of a label that is not empty or alike also the whole
    image.

    Args:
        labels: Texts, one per row; zero rows give zero answers.
        cells: Texts of x_min and y_min, and of x_max and y_max or width and height.
        sides: width_px and height_px of each row's image; 0 if it is unknown.
    """
    answers = says_no_finding(labels)
    chosen = cells[answers]
    numbers = pd.DataFrame({name: to_numbers(chosen[name]) for name in chosen}).to_numpy()
    stand_in = np.array([row in _STAND_INS for row in numbers.tolist()], dtype=bool)
    low, high = numbers[:, :2], numbers[:, 2:] + (numbers[:, :2] if "width" in cells else 0)
    size = sides.loc[answers, ["width_px", "height_px"]].to_numpy(np.float64)
    whole = ((low <= _OVER) & (high >= size - _OVER) & (size > 0)).all(axis=1)
    whole &= ~_are(labels[answers], _NO_VALUES).to_numpy()
    answers[answers] = has_no_corners(chosen).to_numpy() | stand_in | whole
    return answers
