"""From a candidate to the probability that it is right: a small logistic model and one isotonic curve per class.

Fitted with scikit-learn, stored as plain numbers, applied by the few lines of numpy below. What matters most
beside the score is the best rival: two classes that a detector takes for each other cannot both be right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from kit.boxes.geometry import CORNERS, Sizes, area

LEAST_HITS = 20  # a class with fewer is read off the curve of all classes together
# The share of the confidence that is the score itself: only to break what the curve leaves equal.
TIE_SHARE = 1e-3
# The logistic model's own p counts like this many hits beside a curve: alone, the isotonic steps follow every
# accident of a hundred hits, and end flat above the last of them, where the best candidates lie.
PRIOR_HITS = 150
# Strength of the logistic model's ridge; on a thousand hits it hardly matters, on fifty it keeps it sober.
_RIDGE = 1.0
_LEAST_ODDS = 1e-6  # scores of exactly 0 or 1 have no logarithm
_MOST_EVIDENCE = 500.0  # beyond it the exponential overflows, and p is 0 or 1
_LEAST_RIVAL = 1e-3  # a rival below this score is none
_USUAL_SIZE = -1.5  # the logarithm of a box's side as a share of the image's, about where most lie


@dataclass(frozen=True)
class Curve:
    """A rising line through points: p at the evidence ``at``, flat beyond both ends; and how far it is trusted."""

    at: tuple[float, ...]
    p: tuple[float, ...]
    trust: float  # 0..1, of the curve; the rest is the logistic model's own p

    def __call__(
        self, evidence: Float64[np.ndarray, " n"], modelled: Float64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        """The probabilities at these evidences, for which the logistic model says ``modelled``."""
        return self.trust * np.interp(evidence, self.at, self.p) + (1 - self.trust) * modelled


@dataclass(frozen=True)
class ClassTerms:
    """What a class adds to the evidence: an offset, and factors of the box's size and its square."""

    offset: float
    size: float
    square: float


@dataclass(frozen=True)
class Calibration:
    """All numbers that turn a candidate into p(true positive)."""

    constant: float  # the logistic model's
    score: float  # factor of the score's log-odds, above 0
    rival: float  # factor of the log-odds of the image's best candidate of another class
    agreement: float  # factor of the share of sources that agree
    terms: Mapping[str, ClassTerms]
    pooled: Curve
    curves: Mapping[str, Curve]  # of the classes with enough hits

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """The inverse of ``to_dict``, exactly."""
        return cls(
            content["constant"],
            content["score"],
            content["rival"],
            content["agreement"],
            {label: ClassTerms(**terms) for label, terms in content["terms"].items()},
            _curve(content["pooled"]),
            {label: _curve(curve) for label, curve in content["curves"].items()},
        )


def fit(candidates: pd.DataFrame, right: Bool[np.ndarray, " n"], sizes: Sizes) -> Calibration | None:
    """Learn p from candidates (image_id, corners, score, label, agreement) and whether each was right.

    A ridge logistic model of the score's log-odds, the best rival's, the agreement, and per class an offset,
    the box's size and its square gives the evidence; p is the isotonic regression of ``right`` on the evidence,
    per class, its steps joined at their middles (Oron and Flournoy, Centered isotonic regression, 2017),
    averaged with the logistic model's own p, which weighs like ``PRIOR_HITS`` hits.
    ``candidates`` holds every candidate of its images: each is the others' rival. None where all candidates are
    right or none is: then nothing can be learned.
    """
    if right.all() or not right.any():
        return None
    from sklearn.linear_model import LogisticRegression  # half a second, and only here

    labels = candidates["label"].to_numpy(object)
    known = sorted(set(labels))
    model = LogisticRegression(C=1 / _RIDGE, max_iter=1000)
    model.fit(_design(candidates, sizes, known), right)
    score, rival, agreement, *others = model.coef_[0].tolist()
    per_class = np.reshape(others, (3, len(known))).T.tolist()
    terms = {label: ClassTerms(*values) for label, values in zip(known, per_class, strict=True)}
    blank = Curve((0.0,), (0.0,), 0.0)
    prior_hits = PRIOR_HITS
    bare = Calibration(float(model.intercept_[0]), score, rival, agreement, terms, blank, {})
    if score <= 0:  # the score misleads in this table; it still orders the candidates, by the curves alone
        bare, prior_hits = Calibration(0.0, 1.0, 0.0, 0.0, {}, blank, {}), 0
    seen = evidence(bare, candidates, sizes)
    curves = {
        label: _isotonic(seen[labels == label], right[labels == label], prior_hits)
        for label in known
        if right[labels == label].sum() >= LEAST_HITS
    }
    return replace(bare, pooled=_isotonic(seen, right, prior_hits), curves=curves)


def evidence(calibration: Calibration, candidates: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, " n"]:
    """The logistic model's log-odds without its constant; a class that it never saw adds nothing."""
    odds, rival, agreement, size = _features(candidates, sizes)
    none = ClassTerms(0.0, 0.0, 0.0)
    terms = [calibration.terms.get(label, none) for label in candidates["label"]]
    offset, slope, square = np.array([(t.offset, t.size, t.square) for t in terms]).reshape(-1, 3).T
    shared = calibration.score * odds + calibration.rival * rival + calibration.agreement * agreement
    return shared + offset + slope * size + square * size**2


def probability(calibration: Calibration, candidates: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, " n"]:
    """p(true positive) of each candidate, 0..1; among boxes of a class alike but for the score it rises strictly.

    ``candidates`` holds every candidate of its images. Where p is flat the score decides: ``TIE_SHARE`` of the
    result is the score.
    """
    seen = evidence(calibration, candidates, sizes)
    modelled = 1 / (1 + np.exp(-np.clip(seen + calibration.constant, -_MOST_EVIDENCE, _MOST_EVIDENCE)))
    p = calibration.pooled(seen, modelled)
    labels = candidates["label"].to_numpy(object)
    for label, curve in calibration.curves.items():
        p = np.where(labels == label, curve(seen, modelled), p)
    return (1 - TIE_SHARE) * p + TIE_SHARE * np.clip(candidates["score"].to_numpy(np.float64), 0, 1)


def best_rivals(candidates: pd.DataFrame, odds: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """For each candidate the log-odds of its image's best candidate of another class.

    A rival scored below ``_LEAST_RIVAL``, or none, counts as one of that score.
    """
    none = math.log(_LEAST_RIVAL / (1 - _LEAST_RIVAL))
    image, images = pd.factorize(candidates["image_id"])
    label, labels = pd.factorize(candidates["label"])
    best = np.full((len(images), len(labels) + 1), none)  # one column more: with a single class nobody is a rival
    np.maximum.at(best, (image, label), odds)
    first = best.argmax(axis=1)
    highest = best.max(axis=1)
    best[np.arange(len(images)), first] = none
    return np.where(label == first[image], best.max(axis=1, initial=none)[image], highest[image])


def _features(candidates: pd.DataFrame, sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds of the score, those of the best rival, agreement, and the logarithm of the box's relative side."""
    score = np.clip(candidates["score"].to_numpy(np.float64), _LEAST_ODDS, 1 - _LEAST_ODDS)
    odds = np.log(score / (1 - score))
    image, images = pd.factorize(candidates["image_id"])
    pixels = np.array([sizes[name][0] * sizes[name][1] for name in images], dtype=np.float64)[image]
    share = np.maximum(area(candidates[CORNERS].to_numpy(np.float64)), 1.0) / pixels
    return (
        odds,
        best_rivals(candidates, odds),
        candidates["agreement"].to_numpy(np.float64),
        np.log(share) / 2 - _USUAL_SIZE,
    )


def _design(candidates: pd.DataFrame, sizes: Sizes, labels: list[str]) -> Float64[np.ndarray, "n f"]:
    """Columns: log-odds, the rival's, agreement, then one per class for its offset, its size, its square."""
    *shared, size = _features(candidates, sizes)
    own = (candidates["label"].to_numpy(object)[:, None] == np.array(labels, dtype=object)).astype(np.float64)
    return np.hstack([np.stack(shared, axis=1), own, own * size[:, None], own * size[:, None] ** 2])


def _isotonic(seen: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"], prior_hits: int) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(y_min=0, y_max=1).fit_transform(seen, right.astype(np.float64))
    heights, step = np.unique(steps, return_inverse=True)
    middle = np.bincount(step, weights=seen) / np.bincount(step)
    hits = int(right.sum())
    return Curve(tuple(middle.tolist()), tuple(heights.tolist()), hits / (hits + prior_hits))


def _curve(content: Mapping[str, Any]) -> Curve:
    return Curve(tuple(content["at"]), tuple(content["p"]), content["trust"])
