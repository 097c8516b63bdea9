"""The uncertainty of a mAP: percentile bootstrap by patient, and the range of scores on fewer images.

The matching is done once; a resample only counts each patient's copies, so that a thousand resamples are a few
matrix products. Two runs compared on the same images get the same resamples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from kit.core.json_files import FloatOrNaN
from kit.metrics.average_precision import RECALL_POINTS, ClassMatches, Matches, average_precision

RESAMPLES = 1000
DRAWS = 400
ROUNDING = 1e-9  # a difference this near to 0 is none: sums of the same numbers in another order differ so
_QUANTILES = (0.025, 0.975)
# Images are drawn without replacement if the pool is this many times as large as the draw. From a smaller pool
# every draw would be nearly the whole pool, and their range would be far too narrow.
_POOL_FACTOR = 2


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 95% interval; the ends are NaN with fewer than two patients."""

    value: FloatOrNaN
    low: FloatOrNaN
    high: FloatOrNaN

    @property
    def above_0(self) -> bool:
        """Whether the whole interval lies above 0, by more than rounding."""
        return self.low > ROUNDING

    @property
    def below_0(self) -> bool:
        """Whether the whole interval lies below 0, by more than rounding."""
        return self.high < -ROUNDING


@dataclass(frozen=True)
class Intervals:
    """The interval of the mean over the classes, and that of each class with true boxes."""

    overall: Interval
    per_class: Mapping[str, Interval]


@dataclass(frozen=True)
class Expected:
    """The mAP to expect on ``images`` other images of this kind: mean and 95% range of ``draws`` draws."""

    mean: FloatOrNaN
    low: FloatOrNaN
    high: FloatOrNaN
    images: int
    draws: int
    replacement: bool


def map_intervals(
    matches: Matches, patients: Mapping[str, str], seed: int, resamples: int = RESAMPLES
) -> Intervals:
    """The mAP at IoU .5 and each class's AP with their 95% percentile bootstrap intervals, by patient.

    ``patients`` names the patient of every image. The values are those of ``score_detections`` on all images.
    The intervals cover the choice of patients, not the chance in the training. Source: Efron and Tibshirani,
    An introduction to the bootstrap (1993), chapter 13.
    """
    patient, counts = resamples_by_patient(matches.image_ids, patients, seed, resamples)
    return _intervals(_values(matches), resampled(matches, patient, counts))


def paired_difference(
    first: Matches, second: Matches, patients: Mapping[str, str], seed: int, resamples: int = RESAMPLES
) -> Intervals:
    """The intervals of ``first`` minus ``second``, paired: both are scored on the same resamples.

    Args:
        first, second: two matchings of the same images and true boxes.
        patients: the patient of every image.
        seed: of the resamples.
        resamples: their number.

    Raises:
        ValueError: the images or their true boxes differ.
    """
    truths = [
        {label: matched.positives.tolist() for label, matched in _with_truth(matches).items()}
        for matches in (first, second)
    ]
    if first.image_ids != second.image_ids or truths[0] != truths[1]:
        raise ValueError("a paired difference needs the same images with the same true boxes on both sides")
    patient, counts = resamples_by_patient(first.image_ids, patients, seed, resamples)
    values = [_values(matches) for matches in (first, second)]
    drawn = [resampled(matches, patient, counts) for matches in (first, second)]
    return _intervals(_minus(*values), _minus(*drawn))


def expected_score(matches: Matches, images: int, seed: int, draws: int = DRAWS) -> Expected:
    """The mAP to expect on a new set of ``images`` images, from ``draws`` draws of as many of these images.

    The draws are without replacement if there are at least twice as many images, else with. A mAP changes with
    the number of images, so the score on all of them is not what a set of another size shows.
    The draws overlap with these images, a new set does not: the variance of n new images next to a pool of N is
    proportional to 1/n + 1/N, that of the draws to 1/n - 1/N (without replacement) or 1/n. So the draws are
    spread about their mean by the square root of the ratio.
    """
    pool = len(matches.image_ids)
    replacement = pool < _POOL_FACTOR * images
    if not pool or not images:
        return Expected(math.nan, math.nan, math.nan, images, draws, replacement)
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, pool))
    for row in counts:
        np.add.at(row, rng.choice(pool, images, replace=replacement), 1)
    scores = _class_mean(resampled(matches, np.arange(pool), counts))
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return Expected(math.nan, math.nan, math.nan, images, draws, replacement)
    mean, share = float(scores.mean()), images / pool
    spread = math.sqrt((1 + share) / (1 if replacement else 1 - share))
    low, high = np.quantile(np.clip(mean + (scores - mean) * spread, 0, 1), _QUANTILES)
    return Expected(mean, float(low), float(high), images, draws, replacement)


def resampled(
    matches: Matches, group: Int64[np.ndarray, " images"], counts: Float64[np.ndarray, "r groups"]
) -> dict[str, Float64[np.ndarray, " r"]]:
    """Each class's AP (COCO's 101 points) in every resample; NaN in a resample without a true box of it.

    ``group`` has each image's group, counted from 0, and ``counts`` the copies of each group in each resample.
    Equal to scoring a data set with that many copies of the images, each detection's copies side by side: between
    two hits the precision only falls, so the ranks of the hits determine the envelope.
    """
    return {label: _class_resampled(matched, group, counts) for label, matched in _with_truth(matches).items()}


def _class_resampled(
    matched: ClassMatches, group: Int64[np.ndarray, " images"], counts: Float64[np.ndarray, "r groups"]
) -> Float64[np.ndarray, " r"]:
    groups, hits = counts.shape[1], int(matched.hits.sum())
    positives = counts @ np.bincount(group, weights=matched.positives, minlength=groups)
    group_of = group[matched.images]
    # The number of detections of each group after the hit before, up to and with this hit.
    next_hit = np.cumsum(matched.hits) - matched.hits
    useful = next_hit < hits
    cells = group_of[useful] * hits + next_hit[useful]
    added = np.bincount(cells, minlength=groups * hits).reshape(groups, hits).astype(np.float64)
    detections = np.cumsum(counts @ added, axis=1)
    right = np.cumsum(counts[:, group_of[matched.hits]], axis=1)
    precision = np.divide(right, detections, out=np.zeros_like(right), where=detections > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    known = positives > 0
    recall = np.divide(right, positives[:, None], out=np.zeros_like(right), where=known[:, None])
    points = RECALL_POINTS["coco101"]
    # A recall point is read at the first hit that reaches it.
    reached = np.searchsorted(points, recall, side="right")
    newly_reached = np.diff(reached, axis=1, prepend=0)
    return np.where(known, (envelope * newly_reached).sum(axis=1) / len(points), np.nan)


def resamples_by_patient(
    image_ids: Sequence[str], patients: Mapping[str, str], seed: int, resamples: int
) -> tuple[Int64[np.ndarray, " images"], Float64[np.ndarray, "r groups"]]:
    """Each image's patient, counted from 0, and the copies of each patient in each resample."""
    names, patient = np.unique([patients[image] for image in image_ids], return_inverse=True)
    count = len(names)
    if count < 2:  # a single patient has no spread
        return patient.astype(np.int64), np.zeros((0, count))
    return patient.astype(np.int64), _copies(count, seed, resamples)


@functools.lru_cache(maxsize=1)  # a report asks a dozen times for the same ones
def _copies(count: int, seed: int, resamples: int) -> Float64[np.ndarray, "r groups"]:
    """The copies of each of ``count`` groups in each resample; read-only."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    copies: Float64[np.ndarray, "r groups"] = drawn.astype(np.float64)
    copies.flags.writeable = False
    return copies


def _values(matches: Matches) -> dict[str, float]:
    return {
        label: average_precision(matched.hits, int(matched.positives.sum()))
        for label, matched in _with_truth(matches).items()
    }


def _minus(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {label: first[label] - second[label] for label in first}


def _with_truth(matches: Matches) -> dict[str, ClassMatches]:
    return {label: matched for label, matched in matches.classes.items() if matched.positives.any()}


def _intervals(values: Mapping[str, float], drawn: Mapping[str, Float64[np.ndarray, " r"]]) -> Intervals:
    overall = float(np.mean(list(values.values()))) if values else math.nan
    return Intervals(
        quantiles(overall, _class_mean(drawn)),
        {label: quantiles(values[label], drawn[label]) for label in values},
    )


def _class_mean(drawn: Mapping[str, Float64[np.ndarray, " r"]]) -> Float64[np.ndarray, " r"]:
    """The mean over the classes with true boxes in a resample; NaN if none has."""
    if not drawn:
        return np.zeros(0)
    table = np.stack(list(drawn.values()))
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def quantiles(value: float, drawn: Float64[np.ndarray, " r"]) -> Interval:
    """A value with the 95% interval of its resamples; NaN among them are left out."""
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(known, _QUANTILES)
    return Interval(value, float(low), float(high))
