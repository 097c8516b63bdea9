"""The probability that a candidate is right: a small logistic model and one isotonic curve per class.

Fitted and applied with numpy, and stored as plain numbers. After the score the best rival matters most: of two
classes that a detector confuses only one can be right. Further columns of the candidates may be terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from kit.boxes.geometry import CORNERS, Sizes, area, image_sides

LEAST_HITS = 20  # a class with fewer hits uses the curve of all classes together
# The score's own share of p: it only breaks ties where the curve is flat.
TIE_SHARE = 1e-3
# The weight of the logistic model's p beside a curve, in hits. Isotonic steps alone follow every accident of a
# hundred hits, and are flat above the last step, where the best candidates lie.
PRIOR_HITS = 150
# Strength of the logistic model's ridge: on a thousand hits it hardly matters, on fifty it limits the factors.
_RIDGE = 1.0
# That of a further term, by standard deviation. At 10 evidence brings nine tenths of its worth, at 3 nearly all; a
# column of mere noise does no harm at either (docs/experiments.md).
_EXTRA_RIDGE = 3.0
_CONVERGED = 1e-6  # the largest change of a coefficient in Newton's last step: what is left is as its square
_DIGITS = 8  # of a coefficient: how sums are rounded beyond them depends on the processor and its threads
_ROUNDING = 1e-12  # of the loss, as a share
_LEAST_SPREAD = 1e-6  # of a further column, as a share of its mean if that is above 1: below it is rounding
_LEAST_ODDS = 1e-6  # the log-odds of a score of 0 or 1 are infinite
_MOST_EVIDENCE = 500.0  # beyond it the exponential overflows, and p is 0 or 1
_LEAST_RIVAL = 1e-3  # a rival below this score counts as no rival
_USUAL_SIZE = -1.5  # a usual logarithm of a box's side as a share of the image's side


@dataclass(frozen=True)
class Curve:
    """A rising line through points: p at the evidence ``at``, flat beyond both ends; and the curve's weight."""

    at: tuple[float, ...]
    p: tuple[float, ...]
    trust: float  # weight of the curve, 0..1; the rest is that of the logistic model's p

    def __post_init__(self) -> None:
        if not self.at or len(self.at) != len(self.p):
            raise ValueError(f"a curve has a p at each evidence, not {len(self.p)} at {len(self.at)}")
        if list(self.at) != sorted(self.at) or not all(0 <= share <= 1 for share in (*self.p, self.trust)):
            raise ValueError("a curve has rising evidence, and each p and its weight in 0..1")

    def __call__(
        self, evidence: Float64[np.ndarray, " n"], modelled: Float64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """p at each evidence; ``modelled`` is the logistic model's p there."""
        return self.trust * np.interp(evidence, self.at, self.p) + (1 - self.trust) * modelled


@dataclass(frozen=True)
class ClassTerms:
    """A class's terms of the evidence: an offset, and factors of the box's size and of its square."""

    offset: float
    size: float
    square: float


@dataclass(frozen=True)
class ExtraTerm:
    """A further column of the candidates as a term: ``factor`` times its distance from ``usual``.

    ``missing`` is the term of a candidate whose value is NaN: what the model learned from those, not that of 0.
    ``lowest`` and ``highest`` are the values that it learned from: one beyond them counts as the nearest of them.
    """

    factor: float
    usual: float
    missing: float
    lowest: float
    highest: float

    def __call__(self, values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The term of each value."""
        learned = values.clip(self.lowest, self.highest)
        return np.where(np.isnan(values), self.missing, self.factor * (learned - self.usual))


@dataclass(frozen=True)
class Calibration:
    """All numbers that give a candidate's p(true positive)."""

    constant: float  # of the logistic model
    score: float  # factor of the score's log-odds, above 0
    rival: float  # factor of the log-odds of the image's best candidate of another class
    agreement: float  # factor of the share of sources that agree
    terms: Mapping[str, ClassTerms]
    pooled: Curve
    curves: Mapping[str, Curve]  # of the classes with LEAST_HITS hits or more
    extra: Mapping[str, ExtraTerm] = field(default_factory=dict)  # by column of the candidates


def fit(
    candidates: pd.DataFrame, right: Bool[np.ndarray, " n"], sizes: Sizes, extra: Sequence[str] = ()
) -> Calibration | None:
    """Learn p from candidates (image_id, corners, score, label, agreement) and whether each is right.

    A ridge logistic model gives the evidence: its features are the log-odds of the score and of the best rival,
    the agreement, per class an offset, the box's size and its square, and the columns named in ``extra`` (standard
    scores); NaN is a missing value, which has a feature of its own. p is the isotonic regression of ``right`` on
    the evidence, per class, its steps joined at their middles (Oron and Flournoy, Centered isotonic regression,
    2017), averaged with the logistic model's p, which has the weight of ``PRIOR_HITS`` hits.
    ``candidates`` holds every candidate of its images, because candidates are each other's rivals. Returns None
    if all candidates are right, or none: then there is nothing to learn.
    """
    if right.all() or not right.any():
        return None
    number, names = pd.factorize(candidates["label"], sort=True)
    logistic, prior_hits = _logistic_model(candidates, number, list(names), right, sizes, extra), PRIOR_HITS
    if logistic.score <= 0:
        # Higher scores are worse here: the evidence is the score and further terms, p that of the curves alone.
        logistic = replace(logistic, constant=0.0, score=1.0, rival=0.0, agreement=0.0, terms={})
        prior_hits = 0
    x = evidence(logistic, candidates, sizes)
    curves = {
        label: _isotonic(x[number == index], right[number == index], prior_hits)
        for index, label in enumerate(names)
        if right[number == index].sum() >= LEAST_HITS
    }
    return replace(logistic, pooled=_isotonic(x, right, prior_hits), curves=curves)


def evidence(calibration: Calibration, candidates: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, " n"]:
    """The logistic model's log-odds without its constant; an unknown class adds nothing.

    In a table without the column of an extra term all its values are missing.
    """
    odds, rival, agreement, size = _features(candidates, sizes)
    none = ClassTerms(0.0, 0.0, 0.0)
    label, labels = pd.factorize(candidates["label"])
    terms = [calibration.terms.get(name, none) for name in labels]
    offset, slope, square = np.array([(t.offset, t.size, t.square) for t in terms]).reshape(-1, 3)[label].T
    shared = calibration.score * odds + calibration.rival * rival + calibration.agreement * agreement
    total = shared + offset + slope * size + square * size**2
    for name, term in calibration.extra.items():
        total = total + term(_column(candidates, name))
    return total


def probability(calibration: Calibration, candidates: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, " n"]:
    """p(true positive) of each candidate, 0..1; if boxes differ in the score alone, p rises with it.

    ``candidates`` holds every candidate of its images. ``TIE_SHARE`` of p is the score, which breaks ties where the
    curve is flat.
    """
    x = evidence(calibration, candidates, sizes)
    modelled = _logistic(x + calibration.constant)
    p = calibration.pooled(x, modelled)
    number, names = pd.factorize(candidates["label"])
    for index, label in enumerate(names):
        if label in calibration.curves:
            rows = number == index
            p[rows] = calibration.curves[label](x[rows], modelled[rows])
    return (1 - TIE_SHARE) * p + TIE_SHARE * np.clip(candidates["score"].to_numpy(np.float64), 0, 1)


def log_odds(scores: pd.Series) -> Float64[np.ndarray, " n"]:
    """The log-odds of scores in 0..1; those of 0 and 1 are finite."""
    p = np.clip(scores.to_numpy(np.float64), _LEAST_ODDS, 1 - _LEAST_ODDS)
    return np.log(p / (1 - p))


def best_rivals(candidates: pd.DataFrame, odds: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """For each candidate the log-odds of the best candidate of another class on its image.

    Without a rival, or with one of a score below ``_LEAST_RIVAL``, the log-odds are those of that score.
    """
    none = math.log(_LEAST_RIVAL / (1 - _LEAST_RIVAL))
    image, images = pd.factorize(candidates["image_id"])
    label, labels = pd.factorize(candidates["label"])
    best = np.full((len(images), len(labels) + 1), none)  # one more column, for a single class without rivals
    np.maximum.at(best, (image, label), odds)
    first = best.argmax(axis=1)
    highest = best.max(axis=1)
    best[np.arange(len(images)), first] = none
    return np.where(label == first[image], best.max(axis=1, initial=none)[image], highest[image])


def _features(candidates: pd.DataFrame, sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds of the score and of the best rival, agreement, and logarithm of the box's relative side."""
    odds = log_odds(candidates["score"])
    pixels = image_sides(candidates["image_id"], sizes).prod(axis=1)
    share = np.maximum(area(candidates[CORNERS].to_numpy(np.float64)), 1.0) / pixels
    return (
        odds,
        best_rivals(candidates, odds),
        candidates["agreement"].to_numpy(np.float64),
        np.log(share) / 2 - _USUAL_SIZE,
    )


def _logistic_model(
    candidates: pd.DataFrame,
    number: Int[np.ndarray, " n"],
    classes: Sequence[str],
    right: Bool[np.ndarray, " n"],
    sizes: Sizes,
    extra: Sequence[str],
) -> Calibration:
    """The model without curves; ``number`` is the place of each candidate's class in ``classes``."""
    odds, rivals, agreements, size = _features(candidates, sizes)
    one = np.ones(len(size))
    columns = {name: _column(candidates, name) for name in extra}
    further = [part for values in columns.values() for part in _extra_design(values)]
    shared = np.stack([one, odds, rivals, agreements, *further], axis=1)
    of_all, of_class = _ridge_logistic(shared, np.stack([one, size, size**2], axis=1), number, right)
    constant, score, rival, agreement, *others = of_all.tolist()
    terms = {label: ClassTerms(*values) for label, values in zip(classes, of_class.tolist(), strict=True)}
    pairs = zip(others[::2], others[1::2], strict=True)
    learned = {name: _extra_term(columns[name], *pair) for name, pair in zip(columns, pairs, strict=True)}
    return Calibration(constant, score, rival, agreement, terms, Curve((0.0,), (0.0,), 0.0), {}, learned)


def _column(candidates: pd.DataFrame, name: str) -> Float64[np.ndarray, " n"]:
    """The values of an extra term; all are missing in a table without it."""
    return candidates[name].to_numpy(np.float64) if name in candidates else np.full(len(candidates), np.nan)


def _extra_design(values: Float64[np.ndarray, " n"]) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The known values in standard deviations from their mean; whether a value is missing, unless all are.

    Both are divided, so that the ridge of their factors is ``_EXTRA_RIDGE``.
    """
    usual, spread = _usual(values)
    missing = np.isnan(values)
    shrunk = math.sqrt(_RIDGE / _EXTRA_RIDGE)
    return shrunk * np.where(missing, 0.0, (values - usual) / spread), shrunk * (missing & ~missing.all())


def _extra_term(values: Float64[np.ndarray, " n"], factor: float, missing: float) -> ExtraTerm:
    """The term that two coefficients of ``_extra_design`` stand for."""
    usual, spread = _usual(values)
    shrunk = math.sqrt(_RIDGE / _EXTRA_RIDGE)
    known = _known(values)
    return ExtraTerm(shrunk * factor / spread, usual, shrunk * missing, float(known.min()), float(known.max()))


def _usual(values: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean and standard deviation of the known values; 1 in its place if they are equal up to rounding."""
    known = _known(values)
    usual, spread = float(known.mean()), float(known.std())
    return usual, spread if spread > _LEAST_SPREAD * max(1.0, abs(usual)) else 1.0


def _known(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " k"]:
    """The values that are not missing; a single 0 if all are."""
    known = values[~np.isnan(values)]
    return known if len(known) else np.zeros(1)


def _ridge_logistic(
    shared: Float64[np.ndarray, "n s"],
    own: Float64[np.ndarray, "n o"],
    number: Int[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, "classes o"]]:
    """The factors that minimise the logistic loss and ``_RIDGE`` / 2 of the factors' squares.

    Newton's method, whose step is halved while the loss would rise (Boyd and Vandenberghe, Convex Optimization,
    2004, 9.5): some ten rounds to the minimum. A method that stops at a small slope stops too early here: where
    hits are rare, some factors were off by .5.

    Args:
        shared: Columns with one factor each for all classes; the first is the constant's, whose factor is free.
        own: Columns with a factor of their own in each class.
        number: The class of each row, 0, 1, ... without a gap.
        right: Whether each row is right; some are, and some are not.

    Returns:
        The factors of the shared columns, and those of each class.
    """
    classes, last = int(number.max()) + 1, shared.shape[1]
    columns = np.hstack([shared, own]).T
    # Each class's columns, a row each, and where its factors are: no class has a column of another one.
    parts = [
        (np.ascontiguousarray(columns[:, rows]), right[rows]) for rows in (number == i for i in range(classes))
    ]
    places = last + np.arange(classes * own.shape[1]).reshape(classes, -1)
    places = np.hstack([np.tile(np.arange(last), (classes, 1)), places])
    ridge = np.full(places.max() + 1, _RIDGE)
    ridge[0] = 0.0

    def loss(factors: np.ndarray) -> float:
        against = (
            np.where(hit, -1, 1) * (factors[at] @ part) for (part, hit), at in zip(parts, places, strict=True)
        )
        losses = (np.maximum(odds, 0) + np.log1p(np.exp(-np.abs(odds))) for odds in against)
        return float(sum(values.sum() for values in losses) + ridge @ factors**2 / 2)

    factors, step = np.zeros(len(ridge)), np.ones(len(ridge))
    factors[0] = math.log(right.mean() / (1 - right.mean()))
    lowest = loss(factors)
    while np.abs(step).max() > _CONVERGED:
        slope, curvature = ridge * factors, np.diag(ridge)
        for (part, hit), at in zip(parts, places, strict=True):
            p = _logistic(factors[at] @ part)
            slope[at] += part @ (p - hit)
            curvature[np.ix_(at, at)] += part * (p * (1 - p)) @ part.T
        step = np.linalg.solve(curvature, slope)
        while (reached := loss(factors - step)) > (1 + _ROUNDING) * lowest and np.abs(step).max() > _CONVERGED:
            step = step / 2
        factors, lowest = factors - step, reached
    if not np.isfinite(factors).all():
        raise ValueError(
            "a calibration is fitted to finite numbers, and some of the candidates are NaN or infinite"
        )
    factors = factors.round(_DIGITS)
    return factors[:last], factors[last:].reshape(classes, -1)


def _logistic(odds: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The probability of log-odds."""
    return 1 / (1 + np.exp(-np.clip(odds, -_MOST_EVIDENCE, _MOST_EVIDENCE)))


def _isotonic(x: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], prior_hits: int) -> Curve:
    from scipy.optimize import isotonic_regression  # a third of a second, needed only here

    at, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    hits = np.bincount(inverse, weights=right)
    starts = isotonic_regression(hits / count, weights=count).blocks[:-1]
    # From sums, whose quotients are equal where steps are: its running means may leave two equal steps apart.
    heights = np.add.reduceat(hits, starts) / np.add.reduceat(count, starts)
    rising = np.diff(heights, prepend=-1) > 0
    starts, heights = starts[rising], heights[rising]
    ends = np.append(starts[1:], len(at)) - 1
    middle = np.add.reduceat(at * count, starts) / np.add.reduceat(count, starts)
    middle = middle.clip(at[starts], at[ends])  # beyond them by rounding alone
    trust = float(hits.sum() / (hits.sum() + prior_hits))
    return Curve(tuple(middle.tolist()), tuple(heights.tolist()), trust)
