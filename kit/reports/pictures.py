"""Radiographs with boxes on them: which images are drawn, and the marks on each.

Everything is a function of (inputs, seed): the same call gives the same pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.reports import figures
from kit.reports.figures import PREDICTION, TRUTH, Figure, Mark
from kit.schemas.image_headers import ImageFacts

_SAMPLES_PER_CLASS = 2
_SAME_BOX_PX = 1.0
_TRUTH_PT, _CANDIDATE_PT, _ANSWER_PT = 1.4, 0.7, 2.6


def samples(
    annotations: pd.DataFrame, labels: Sequence[str], images: Mapping[str, ImageFacts], seed: int
) -> Figure:
    """Up to two images of each class, drawn by the seed, with all their boxes."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in labels:
        ids = sorted(annotations.loc[annotations["label"] == label, "image_id"].unique())
        drawn = rng.permutation(len(ids))[:_SAMPLES_PER_CLASS]
        chosen += [(label, ids[index]) for index in drawn]
    return figures.sheet(
        [(figures.short(label), images[name], marks(on_image(annotations, name), TRUTH)) for label, name in chosen],
        figures.COLUMNS,
    )


def drawn_images(image_ids: Iterable[str], seed: int) -> list[str]:
    """The images in an order that depends on their names and the seed only."""
    ids = sorted(image_ids)
    return [ids[index] for index in np.random.default_rng(seed).permutation(len(ids))]


def prediction_marks(candidates: pd.DataFrame, answers: pd.DataFrame, most: int) -> list[Mark]:
    """The best ``most`` candidates of one image in thin lines with their scores, its answers on top in thick lines.

    A candidate equal to an answer (same label, corners within a pixel) is drawn once, as the answer.
    """
    best = candidates.sort_values("score", ascending=False, kind="stable").head(most)
    for _, answer in answers.iterrows():
        distance_px = np.abs(best[CORNERS].to_numpy(np.float64) - answer[CORNERS].to_numpy(np.float64))
        same = (best["label"] == answer["label"]).to_numpy() & (distance_px <= _SAME_BOX_PX).all(axis=1)
        best = best[~same]
    return marks(best[::-1], PREDICTION, "score", _CANDIDATE_PT) + marks(
        answers, PREDICTION, "confidence", _ANSWER_PT
    )


def on_image(table: pd.DataFrame, image_id: str) -> pd.DataFrame:
    """The rows of one image."""
    return table[table["image_id"] == image_id]


def marks(table: pd.DataFrame, colour: str, score: str = "", line_pt: float = _TRUTH_PT) -> list[Mark]:
    """A mark for each box: its label, and the number in the column ``score`` if that is named."""
    numbers = [f" {value:.2f}" for value in table[score]] if score else [""] * len(table)
    return [
        Mark((x_min, y_min, x_max, y_max), figures.short(label) + text, colour, line_pt)
        for (x_min, y_min, x_max, y_max), label, text in zip(
            table[CORNERS].to_numpy(np.float64).tolist(), table["label"], numbers, strict=True
        )
    ]
