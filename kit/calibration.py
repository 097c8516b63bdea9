"""From a candidate to the probability that it is right: a small logistic model, then one isotonic curve per class.

Fitted with scikit-learn, stored as plain numbers, applied by the few lines of numpy below. Scores of
different classes mean different things; after this they can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from kit.boxes import CORNERS, area

LEAST_HITS = 20  # a class with fewer is read off the curve of all classes together
# The share of the confidence that is the score itself: only to break what the curve leaves equal.
TIE_SHARE = 1e-3
# The logistic model's own p counts like this many hits where a curve's heights are fitted: alone, the isotonic
# steps follow every accident of a hundred hits (measured: a perfectly calibrated detector lost .010, now .005).
PRIOR_HITS = 50
# Strength of the logistic model's ridge; on a thousand hits it hardly matters, on fifty it keeps it sober.
_RIDGE = 1.0
_LEAST_ODDS = 1e-6  # scores of exactly 0 or 1 have no logarithm
_USUAL_SIZE = -1.5  # the logarithm of a box's side as a share of the image's, about where most lie

Sizes = Mapping[str, tuple[int, int]]  # image_id -> (width_px, height_px)


@dataclass(frozen=True)
class Curve:
    """A rising line through points: p at the evidence ``at``, flat beyond both ends."""

    at: tuple[float, ...]
    p: tuple[float, ...]

    def __call__(self, evidence: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
        """The probabilities at these evidences."""
        return np.interp(evidence, self.at, self.p)


@dataclass(frozen=True)
class ClassTerms:
    """What a class adds to the evidence: an offset, and factors of the box's size and its square."""

    offset: float
    size: float
    square: float


@dataclass(frozen=True)
class Calibration:
    """All numbers that turn a candidate into p(true positive)."""

    score: float  # factor of the score's log-odds, above 0
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
            content["score"],
            content["agreement"],
            {label: ClassTerms(**terms) for label, terms in content["terms"].items()},
            _curve(content["pooled"]),
            {label: _curve(curve) for label, curve in content["curves"].items()},
        )


def fit(candidates: pd.DataFrame, right: Bool[np.ndarray, "n"], sizes: Sizes) -> Calibration | None:
    """Learn p from candidates (image_id, corners, score, label, agreement) and whether each was right.

    A ridge logistic model of the score's log-odds, the agreement, and per class an offset, the box's size and
    its square gives the evidence; the isotonic regression of ``right`` on the evidence, per class, gives p.
    Its steps are averaged with the logistic model's own p, which weighs like ``PRIOR_HITS`` hits, and joined at
    their middles (Oron and Flournoy, Centered isotonic regression, 2017), so that p rises between them too.
    None where all candidates are right or none is: then nothing can be learned.
    """
    if right.all() or not right.any():
        return None
    from sklearn.linear_model import LogisticRegression  # half a second, and only here

    labels = candidates["label"].to_numpy(object)
    known = sorted(set(labels))
    model = LogisticRegression(C=1 / _RIDGE, max_iter=1000)
    design = _design(candidates, sizes, known)
    model.fit(design, right)
    modelled = model.predict_proba(design)[:, 1]
    factors = model.coef_[0].tolist()
    if factors[0] > 0:
        per_class = np.reshape(factors[2:], (3, len(known))).T.tolist()
        score, agreement, terms = factors[0], factors[1], dict(zip(known, per_class, strict=True))
    else:  # the score misleads in this table; it still orders the candidates
        score, agreement, terms = 1.0, 0.0, {}
        modelled = np.full(len(right), right.mean())
    classes = {label: ClassTerms(*values) for label, values in terms.items()}
    seen = evidence(Calibration(score, agreement, classes, Curve((0.0,), (0.0,)), {}), candidates, sizes)
    curves = {
        label: _isotonic(*(part[labels == label] for part in (seen, right, modelled)))
        for label in known
        if right[labels == label].sum() >= LEAST_HITS
    }
    return Calibration(score, agreement, classes, _isotonic(seen, right, modelled), curves)


def evidence(calibration: Calibration, candidates: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, "n"]:
    """The logistic model's log-odds without its constant; a class that it never saw adds nothing."""
    odds, agreement, size = _features(candidates, sizes)
    none = ClassTerms(0.0, 0.0, 0.0)
    terms = [calibration.terms.get(label, none) for label in candidates["label"]]
    offset, slope, square = np.array([(t.offset, t.size, t.square) for t in terms]).reshape(-1, 3).T
    return calibration.score * odds + calibration.agreement * agreement + offset + slope * size + square * size**2


def probability(calibration: Calibration, candidates: pd.DataFrame, sizes: Sizes) -> Float64[np.ndarray, "n"]:
    """p(true positive) of each candidate, 0..1; among boxes of a class alike but for the score it rises strictly.

    Where the curve is flat the score decides: ``TIE_SHARE`` of the result is the score.
    """
    seen = evidence(calibration, candidates, sizes)
    p = calibration.pooled(seen)
    labels = candidates["label"].to_numpy(object)
    for label, curve in calibration.curves.items():
        p = np.where(labels == label, curve(seen), p)
    return (1 - TIE_SHARE) * p + TIE_SHARE * np.clip(candidates["score"].to_numpy(np.float64), 0, 1)


def _features(candidates: pd.DataFrame, sizes: Sizes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds of the score, agreement, and the logarithm of the box's side over the image's."""
    score = np.clip(candidates["score"].to_numpy(np.float64), _LEAST_ODDS, 1 - _LEAST_ODDS)
    image, images = pd.factorize(candidates["image_id"])
    pixels = np.array([sizes[name][0] * sizes[name][1] for name in images], dtype=np.float64)[image]
    share = np.maximum(area(candidates[CORNERS].to_numpy(np.float64)), 1.0) / pixels
    return (
        np.log(score / (1 - score)),
        candidates["agreement"].to_numpy(np.float64),
        np.log(share) / 2 - _USUAL_SIZE,
    )


def _design(candidates: pd.DataFrame, sizes: Sizes, labels: list[str]) -> Float64[np.ndarray, "n f"]:
    """Columns: log-odds, agreement, then one per class for its offset, its size and its square."""
    odds, agreement, size = _features(candidates, sizes)
    own = (candidates["label"].to_numpy(object)[:, None] == np.array(labels, dtype=object)).astype(np.float64)
    return np.hstack([odds[:, None], agreement[:, None], own, own * size[:, None], own * size[:, None] ** 2])


def _isotonic(
    seen: Float64[np.ndarray, "n"], right: Bool[np.ndarray, "n"], modelled: Float64[np.ndarray, "n"]
) -> Curve:
    from sklearn.isotonic import IsotonicRegression

    steps = IsotonicRegression(y_min=0, y_max=1).fit_transform(seen, right.astype(np.float64))
    heights, step = np.unique(steps, return_inverse=True)
    middle, expected = (np.bincount(step, weights=part) / np.bincount(step) for part in (seen, modelled))
    trust = PRIOR_HITS / (PRIOR_HITS + right.sum())
    blended = (1 - trust) * heights + trust * expected
    return Curve(tuple(middle.tolist()), tuple(blended.tolist()))


def _curve(content: Mapping[str, Any]) -> Curve:
    return Curve(tuple(content["at"]), tuple(content["p"]))
