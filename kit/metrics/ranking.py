"""How well scores of whole images tell which show a finding: the area under the ROC curve, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from kit.metrics.bootstrap import RESAMPLES, Interval, quantiles, resamples_by_patient


def area_under_roc(
    scores: Float64[np.ndarray, " n"],
    shown: Bool[np.ndarray, " n"],
    image_ids: Sequence[str],
    patients: Mapping[str, str],
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """The AUC of scores for what images show, with its 95% percentile bootstrap interval by patient.

    The AUC is the share of pairs of an image that shows it and one that does not in which the first has the higher
    score; a tie is half a pair (Hanley and McNeil, 1982). NaN if all images show it, or none.
    """
    if not shown.any() or shown.all():
        return Interval(math.nan, math.nan, math.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    patient, counts = resamples_by_patient(image_ids, patients, seed, resamples)
    weights = np.vstack([np.ones((1, counts.shape[1])), counts])[:, patient[order]]
    with_it = np.add.reduceat(weights * shown[order], starts, axis=1)
    without = np.add.reduceat(weights * ~shown[order], starts, axis=1)
    below = np.cumsum(without, axis=1) - without
    pairs = with_it.sum(axis=1) * without.sum(axis=1)
    right = (with_it * (below + without / 2)).sum(axis=1)
    value, *areas = np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0).tolist()
    return quantiles(value, np.array(areas))
