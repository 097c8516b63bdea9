"""Where the ceiling lies: what the oracle scores above the chosen answers, split into three kinds of fault.

Only a better detector wins more than the oracle; the split shows what a better choice could win, and where.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int64

from kit.boxes.geometry import CORNERS
from kit.choosing.one_box import Decision, answers_to_detections
from kit.core.json_files import FloatOrNaN
from kit.metrics.average_precision import Matches, match, mean_average_precision


@dataclass(frozen=True)
class CeilingPart:
    """One kind of fault: its number of answers, and the mAP@0.5 that its repair gains in the order of `ceiling`."""

    answers: int
    gain: FloatOrNaN


@dataclass(frozen=True)
class Ceiling:
    """The mAP@0.5 of the chosen answers and of the oracle; the gains of the three parts sum to their difference."""

    chosen: FloatOrNaN
    oracle: FloatOrNaN
    image_ranking: CeilingPart  # right answers that a wrong one of their class outranks
    candidate: CeilingPart  # wrong answers of a right class that has a right candidate
    wrong_class: CeilingPart  # other wrong answers of an image that has a right candidate
    without_candidate: int  # wrong answers of an image that has no right candidate left

    @property
    def parts(self) -> dict[str, CeilingPart]:
        """The three parts by what is wrong, in the order of their repair."""
        return {
            "wrong image ranking": self.image_ranking,
            "wrong candidate of the right class": self.candidate,
            "wrong class": self.wrong_class,
        }


def ceiling(chosen: Decision, oracle: Decision, truth: pd.DataFrame, image_ids: Iterable[str]) -> Ceiling:
    """Repair the chosen answers step by step until they are the oracle's; each step's gain is one part.

    1. image ranking: each answer keeps its box, right ones get confidence 1 and wrong ones 0;
    2. candidate: a wrong answer whose class is right becomes the oracle's right box of that class;
    3. wrong class: all answers are the oracle's.

    The ranking comes first, because it is about the boxes that were chosen. After it, wrong answers come last and
    cost nothing: each image repaired then adds its share of its class's recall, so the other two hardly depend on
    their order. The location prior's answers keep their confidence until they are repaired, as in the oracle.

    Args:
        chosen: The answers to the IDs.
        oracle: The oracle's answers to the same IDs, in the same order.
        truth: The true boxes of the images: image_id, corners and label.
        image_ids: The images.

    Returns:
        The parts. Their scores and gains are NaN without true boxes.
    """
    images = set(image_ids)
    first, last = (match(truth, answers_to_detections(answers.table), images) for answers in (chosen, oracle))
    taken, takeable = _taken(first, len(chosen.table)), _taken(last, len(oracle.table))
    wrong, free = np.flatnonzero(taken < 0), np.flatnonzero((takeable >= 0) & ~np.isin(takeable, taken))
    repaired, by = _paired(chosen.table.iloc[wrong], oracle.table.iloc[free])
    of_prior = chosen.table["ID"].isin(chosen.fallback_ids)
    ranked = chosen.table.assign(confidence=chosen.table["confidence"].where(of_prior, 1.0 * (taken >= 0)))
    placed = _replaced(ranked, oracle.table, wrong[repaired], free[by])
    between = [match(truth, answers_to_detections(table), images) for table in (ranked, placed)]
    scores = [mean_average_precision(matches) for matches in (first, *between, last)]
    gains = np.diff(scores).tolist()
    return Ceiling(
        scores[0],
        scores[-1],
        CeilingPart(_outranked(first), gains[0]),
        CeilingPart(len(repaired), gains[1]),
        CeilingPart(len(free) - len(repaired), gains[2]),
        without_candidate=len(wrong) - len(free),
    )


def _taken(matches: Matches, answers: int) -> Int64[np.ndarray, " n"]:
    """The row of the true box that each answer takes, -1 if none."""
    taken = np.full(answers, -1)
    for found in matches.classes.values():
        taken[found.rows] = found.truths
    return taken


def _paired(wrong: pd.DataFrame, right: pd.DataFrame) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Pairs of a wrong answer and a right box of its image and class, each in one pair at most: their rows."""
    keys = ["image_id", "label"]
    tables = [
        table[keys].assign(rank=table.groupby(keys).cumcount(), row=np.arange(len(table)))
        for table in (wrong, right)
    ]
    pairs = tables[0].merge(tables[1], on=[*keys, "rank"])
    return pairs["row_x"].to_numpy(np.int64), pairs["row_y"].to_numpy(np.int64)


def _outranked(matches: Matches) -> int:
    """How many hits follow a wrong answer of their class."""
    return sum(int((found.hits & (np.cumsum(~found.hits) > 0)).sum()) for found in matches.classes.values())


def _replaced(
    answers: pd.DataFrame, others: pd.DataFrame, rows: Int64[np.ndarray, " p"], by: Int64[np.ndarray, " p"]
) -> pd.DataFrame:
    """The answers, with corners and confidence of some rows from rows of another table."""
    changed = answers.reset_index(drop=True)
    names = [*CORNERS, "confidence"]
    values = changed[names].to_numpy(np.float64).copy()
    values[rows] = others[names].to_numpy(np.float64)[by]
    return changed.assign(**dict(zip(names, values.T, strict=True)))
