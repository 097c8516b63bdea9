"""How far a mAP can be trusted: percentile bootstrap by patient, and the range of scores on fewer images.

The matching is done once; a resample only counts how often each patient stands in it, so that a thousand of
them are a few matrix products. Two runs compared on the same images see the same resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from kit.metrics.average_precision import RECALL_POINTS, ClassMatches, Matches, average_precision

RESAMPLES = 1000
DRAWS = 400
_QUANTILES = (0.025, 0.975)
# A pool is drawn from without putting back if it is this many times as large as the draw. From a smaller one
# every draw would be nearly the whole pool, and their range would say next to nothing.
_ENOUGH = 2


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 95% interval; NaN ends where none can be said (fewer than two patients)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """The interval of the mean over the classes, and that of each class that has truth."""

    overall: Interval
    per_class: Mapping[str, Interval]


@dataclass(frozen=True)
class Expected:
    """The score to expect on ``images`` images like these: mean and 95% range over ``draws`` draws."""

    mean: float
    low: float
    high: float
    images: int
    draws: int
    replacement: bool


def map_intervals(
    matches: Matches, patients: Mapping[str, str], seed: int, resamples: int = RESAMPLES
) -> Intervals:
    """The mAP at IoU .5 and each class's AP with their 95% percentile bootstrap intervals, by patient.

    ``patients`` names the patient of every image. The values are those of ``score_detections`` on all images.
    The intervals cover the chance of these patients, not that of the training. Source: Efron and Tibshirani,
    An introduction to the bootstrap (1993), chapter 13.
    """
    person, counts = _resamples(matches, patients, seed, resamples)
    return _intervals(_values(matches), resampled(matches, person, counts))


def paired_difference(
    first: Matches, second: Matches, patients: Mapping[str, str], seed: int, resamples: int = RESAMPLES
) -> Intervals:
    """``first`` minus ``second``, both on the same resamples: the interval of a paired difference.

    Raises ValueError where the images or their true boxes are not the same.
    """
    truths = [{label: part.positives.tolist() for label, part in _true(each).items()} for each in (first, second)]
    if first.image_ids != second.image_ids or truths[0] != truths[1]:
        raise ValueError("a paired difference needs the same images with the same true boxes on both sides")
    person, counts = _resamples(first, patients, seed, resamples)
    ours, theirs = _values(first), _values(second)
    a, b = resampled(first, person, counts), resampled(second, person, counts)
    return _intervals(
        {label: ours[label] - theirs[label] for label in ours}, {label: a[label] - b[label] for label in a}
    )


def expected_score(matches: Matches, images: int, seed: int, draws: int = DRAWS) -> Expected:
    """The mAP on ``images`` images drawn from these, ``draws`` times.

    Without replacement where there are at least twice as many, else with. The level itself moves with the
    number of images, so this and not the score on all of them is what another set of that size should show.
    These images are a sample themselves, and another set shares none with them: n new images next to a pool
    of N vary by 1/n + 1/N, the draws by 1/n - 1/N (without replacement) or 1/n, so they are spread about
    their mean by the root of the ratio.
    """
    pool = len(matches.image_ids)
    replacement = pool < _ENOUGH * images
    if not pool or not images:
        return Expected(math.nan, math.nan, math.nan, images, draws, replacement)
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, pool))
    for row in counts:
        np.add.at(row, rng.choice(pool, images, replace=replacement), 1)
    found = _class_mean(resampled(matches, np.arange(pool), counts))
    known = found[~np.isnan(found)]
    if not len(known):
        return Expected(math.nan, math.nan, math.nan, images, draws, replacement)
    mean, share = float(known.mean()), images / pool
    spread = math.sqrt((1 + share) / (1 if replacement else 1 - share))
    low, high = np.quantile(np.clip(mean + (known - mean) * spread, 0, 1), _QUANTILES)
    return Expected(mean, float(low), float(high), images, draws, replacement)


def resampled(
    matches: Matches, group: Int64[np.ndarray, " images"], counts: Float64[np.ndarray, "r groups"]
) -> dict[str, Float64[np.ndarray, " r"]]:
    """Each class's AP (COCO's 101 points) in every resample; NaN where it has no true box there.

    ``group`` numbers each image's group, and ``counts`` says how often each group stands in each resample.
    Equal to writing the images out that often and scoring them: between two hits the precision only falls,
    so the envelope is known from the places of the hits alone.
    """
    return {label: _class_resampled(part, group, counts) for label, part in _true(matches).items()}


def _class_resampled(
    found: ClassMatches, group: Int64[np.ndarray, " images"], counts: Float64[np.ndarray, "r groups"]
) -> Float64[np.ndarray, " r"]:
    groups, hits = counts.shape[1], int(found.hits.sum())
    positives = counts @ np.bincount(group, weights=found.positives, minlength=groups)
    person = group[found.images]
    # How many detections each group adds between the last hit and this one, this one included.
    stretch = np.cumsum(found.hits) - found.hits
    useful = stretch < hits
    cells = person[useful] * hits + stretch[useful]
    added = np.bincount(cells, minlength=groups * hits).reshape(groups, hits).astype(np.float64)
    so_far = np.cumsum(counts @ added, axis=1)
    right = np.cumsum(counts[:, person[found.hits]], axis=1)
    precision = np.divide(right, so_far, out=np.zeros_like(right), where=so_far > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    known = positives > 0
    recall = np.divide(right, positives[:, None], out=np.zeros_like(right), where=known[:, None])
    points = RECALL_POINTS["coco101"]
    # A recall point is read at the first hit that reaches it; how many are reached grows from hit to hit.
    reached = np.searchsorted(points, recall, side="right")
    read = np.diff(reached, axis=1, prepend=0)
    return np.where(known, (envelope * read).sum(axis=1) / len(points), np.nan)


def _resamples(
    matches: Matches, patients: Mapping[str, str], seed: int, resamples: int
) -> tuple[Int64[np.ndarray, " images"], Float64[np.ndarray, "r groups"]]:
    names, person = np.unique([patients[image] for image in matches.image_ids], return_inverse=True)
    people = len(names)
    if people < 2:  # one patient says nothing about another
        return person.astype(np.int64), np.zeros((0, people))
    counts = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), resamples)
    return person.astype(np.int64), counts.astype(np.float64)


def _values(matches: Matches) -> dict[str, float]:
    return {
        label: average_precision(part.hits, int(part.positives.sum())) for label, part in _true(matches).items()
    }


def _true(matches: Matches) -> dict[str, ClassMatches]:
    return {label: part for label, part in matches.classes.items() if part.positives.any()}


def _intervals(values: Mapping[str, float], drawn: Mapping[str, Float64[np.ndarray, " r"]]) -> Intervals:
    overall = float(np.mean(list(values.values()))) if values else math.nan
    return Intervals(
        _interval(overall, _class_mean(drawn)),
        {label: _interval(values[label], drawn[label]) for label in values},
    )


def _class_mean(drawn: Mapping[str, Float64[np.ndarray, " r"]]) -> Float64[np.ndarray, " r"]:
    """The mean over the classes that have truth in a resample; NaN where none has."""
    if not drawn:
        return np.zeros(0)
    table = np.stack(list(drawn.values()))
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _interval(value: float, drawn: Float64[np.ndarray, " r"]) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(known, _QUANTILES)
    return Interval(value, float(low), float(high))
