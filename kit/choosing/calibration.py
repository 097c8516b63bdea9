"""The probability that a candidate is right: a small logistic model and one isotonic curve per class.

scikit-learn fits it; it is stored as plain numbers and applied with numpy. After the score the best rival matters
most: of two classes that a detector confuses only one can be right. Further columns of the candidates may be terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

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
    """

    factor: float
    usual: float
    missing: float

    def __call__(self, values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """The term of each value."""
        return np.where(np.isnan(values), self.missing, self.factor * (values - self.usual))


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
    from sklearn.linear_model import LogisticRegression  # half a second, needed only here
    from threadpoolctl import threadpool_limits

    number, names = pd.factorize(candidates["label"], sort=True)
    classes = list(names)
    model = LogisticRegression(C=1 / _RIDGE, max_iter=1000)
    columns = {name: _column(candidates, name) for name in extra}
    further = [_extra_design(values) for values in columns.values()]
    # Several threads wait for each other in sums this small, and round as their number does.
    with threadpool_limits(1, user_api="blas"):
        model.fit(np.hstack([_design(candidates, sizes), *further]), right)
    score, rival, agreement, *others = model.coef_[0].tolist()
    per_class = np.reshape(others[: 3 * len(classes)], (3, len(classes))).T.tolist()
    terms = {label: ClassTerms(*values) for label, values in zip(classes, per_class, strict=True)}
    factors = np.reshape(others[3 * len(classes) :], (len(columns), 2)).tolist()
    learned = {name: _extra_term(columns[name], *pair) for name, pair in zip(columns, factors, strict=True)}
    no_curve = Curve((0.0,), (0.0,), 0.0)
    prior_hits = PRIOR_HITS
    logistic = Calibration(float(model.intercept_[0]), score, rival, agreement, terms, no_curve, {}, learned)
    if score <= 0:  # higher scores are worse here: the evidence is the score and further terms, p the curves alone
        logistic, prior_hits = Calibration(0.0, 1.0, 0.0, 0.0, {}, no_curve, {}, learned), 0
    x = evidence(logistic, candidates, sizes)
    curves = {
        label: _isotonic(x[number == index], right[number == index], prior_hits)
        for index, label in enumerate(classes)
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
    modelled = 1 / (1 + np.exp(-np.clip(x + calibration.constant, -_MOST_EVIDENCE, _MOST_EVIDENCE)))
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


def _design(candidates: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, "n f"]:
    """Columns: log-odds, the rival's log-odds, agreement; then per class its offset, its size, its size squared.

    The classes are those of the candidates, sorted.
    """
    *shared, size = _features(candidates, sizes)
    number, names = pd.factorize(candidates["label"], sort=True)
    is_class = np.eye(len(names))[number]
    return np.hstack([np.stack(shared, axis=1), is_class, is_class * size[:, None], is_class * size[:, None] ** 2])


def _column(candidates: pd.DataFrame, name: str) -> Float64[np.ndarray, " n"]:
    """The values of an extra term; all are missing in a table without it."""
    return candidates[name].to_numpy(np.float64) if name in candidates else np.full(len(candidates), np.nan)


def _extra_design(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 2"]:
    """The known values in standard deviations from their mean; whether a value is missing, unless all are.

    Both are divided, so that the ridge of their factors is ``_EXTRA_RIDGE``.
    """
    usual, spread = _usual(values)
    missing = np.isnan(values)
    columns = np.stack([np.where(missing, 0.0, (values - usual) / spread), missing & ~missing.all()], axis=1)
    return columns * math.sqrt(_RIDGE / _EXTRA_RIDGE)


def _extra_term(values: Float64[np.ndarray, " n"], factor: float, missing: float) -> ExtraTerm:
    """The term that two coefficients of ``_extra_design`` stand for."""
    usual, spread = _usual(values)
    shrunk = math.sqrt(_RIDGE / _EXTRA_RIDGE)
    return ExtraTerm(shrunk * factor / spread, usual, shrunk * missing)


def _usual(values: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean and standard deviation of the known values; 0 and 1 of none, and 1 if they are all equal."""
    known = values[~np.isnan(values)]
    return (float(known.mean()), float(known.std()) or 1.0) if len(known) else (0.0, 1.0)


def _isotonic(x: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], prior_hits: int) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(y_min=0, y_max=1).fit_transform(x, right.astype(np.float64))
    heights, step = np.unique(steps, return_inverse=True)
    middle = np.bincount(step, weights=x) / np.bincount(step)
    hits = int(right.sum())
    return Curve(tuple(middle.tolist()), tuple(heights.tolist()), hits / (hits + prior_hits))
