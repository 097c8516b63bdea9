"""Rows of train.csv that stand for an image without a finding: no corners, or a stand-in box, and no class.

VinBigData and others write them as ``No finding`` with empty corners, their resized copies with 0,0,1,1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit.schemas.csv_text import to_numbers

_LABELS = {
    "",
    "nofinding",
    "nofindings",
    "normal",
    "none",
    "negative",
    "healthy",
    "nan",
}  # letters and digits alone
_STAND_INS = ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0])
_EMPTY = ("", "nan", "NaN")


def has_no_corners(cells: pd.DataFrame) -> pd.Series:
    """Whether all cells of a row are empty or nan; ``cells`` are the texts of its four columns of the box."""
    return cells.isin(_EMPTY).all(axis=1)


def stands_for_no_finding(labels: pd.Series, cells: pd.DataFrame) -> pd.Series:
    """Whether a row has a label such as ``No finding``, and no corners or those of a stand-in box.

    ``labels`` and ``cells`` are texts, a row each; zero rows give zero answers.
    """
    words = {label for label in labels.unique() if "".join(filter(str.isalnum, label.casefold())) in _LABELS}
    answers = labels.isin(words)
    chosen = cells[answers]
    numbers = pd.DataFrame({name: to_numbers(chosen[name]) for name in chosen}).to_numpy().tolist()
    stand_in = np.array([row in _STAND_INS for row in numbers], dtype=bool)
    answers[answers] = has_no_corners(chosen).to_numpy() | stand_in
    return answers
