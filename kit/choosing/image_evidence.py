"""Scores of whole images as evidence: how sure a classifier is of the candidate's label, and of another label.

Log-odds become terms of p, so evidence is soft: it removes no candidate, and what is missing stays missing (NaN).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit.choosing.calibration import log_odds

DEVICE = "image_evidence"
OF_LABEL, OF_ANOTHER = "label", "another label"


def evidence_columns(classifiers: Iterable[str]) -> tuple[str, ...]:
    """The columns that ``with_image_evidence`` adds, two for each classifier."""
    return tuple(f"{name}: {of}" for name in classifiers for of in (OF_LABEL, OF_ANOTHER))


def with_image_evidence(candidates: pd.DataFrame, scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The candidates with two columns for each classifier: log-odds of their label, and of the best other label.

    Each classifier has terms of its own: p learns which one to trust and how far, and a score that one of them
    lacks hides no other. NaN where the image has no score of that label, or of no other label.

    Args:
        candidates: image_id and label; zero rows are fine.
        scores: By classifier a table of image_id, label and score (0..1), one row per image and label.
    """
    columns: dict[str, Float64[np.ndarray, " n"]] = {}
    for name, table in scores.items():
        own, other = _log_odds(candidates, table)
        columns |= dict(zip(evidence_columns([name]), (own, other), strict=True))
    return candidates.assign(**columns)


def _log_odds(
    candidates: pd.DataFrame, scores: pd.DataFrame
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Of each candidate the log-odds of its label on its image, and the highest of the other labels."""
    images, labels = pd.Index(scores["image_id"].unique()), pd.Index(scores["label"].unique())
    # One more image and label, without scores, for candidates whose image or label has none.
    odds = np.full((len(images) + 1, len(labels) + 1), np.nan)
    odds[images.get_indexer(scores["image_id"]), labels.get_indexer(scores["label"])] = log_odds(scores["score"])
    image, label = images.get_indexer(candidates["image_id"]), labels.get_indexer(candidates["label"])
    others = odds[image]
    others[np.arange(len(candidates)), label] = np.nan
    best = np.where(np.isnan(others), -np.inf, others).max(axis=1)
    return odds[image, label], np.where(np.isinf(best), np.nan, best)
