"""The rules by which an image's one box is chosen, how each is judged on images it never saw, and which wins.

A rule gives every candidate a confidence, which is written, and a value, by which the best one is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from kit.boxes.geometry import CORNERS, Sizes
from kit.boxes.nearest_truth import hits_alone
from kit.choosing import calibration
from kit.choosing.balanced_folds import CROSS_FITS, balanced_folds, count_boxes
from kit.choosing.calibration import Calibration
from kit.config import RULE_NAMES
from kit.metrics.average_precision import MATCH_IOU, Matches, match
from kit.metrics.bootstrap import Intervals, paired_difference


@dataclass(frozen=True)
class SelectionRule:
    """``score``: the highest score. ``calibrated``: the highest p(true positive). ``calibrated-frequency``: the
    highest p over the class's share of the true boxes, since the score is a mean over classes and a hit in a
    rare one counts more. The confidence is the score, or p.
    """  # fmt: skip

    name: str
    calibration: Calibration | None  # None: the score as it is
    frequency: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.name not in RULE_NAMES:
            raise ValueError(f"a rule is one of {', '.join(RULE_NAMES)}, not {self.name!r}")

    def judge(self, candidates: pd.DataFrame, sizes: Sizes) -> pd.DataFrame:
        """The candidates (image_id, corners, score, label, agreement) with their confidence and value."""
        if self.calibration is None:
            confidence = np.clip(candidates["score"].to_numpy(np.float64), 0, 1)
        else:
            confidence = calibration.probability(self.calibration, candidates, sizes)
        return self.valued(candidates.assign(confidence=confidence))

    def valued(self, judged: pd.DataFrame) -> pd.DataFrame:
        """The same candidates with their value made anew from confidence and label."""
        value = judged["confidence"].to_numpy(np.float64)
        if self.name == "calibrated-frequency" and self.frequency:
            rarest = min(self.frequency.values())  # for a class that no true box has
            value = value / np.array([self.frequency.get(label, rarest) for label in judged["label"]])
        return judged.assign(value=value)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SelectionRule:
        """The inverse of ``to_dict``, exactly."""
        learned = content["calibration"]
        return cls(content["name"], learned and Calibration.from_dict(learned), dict(content["frequency"]))


SCORE = SelectionRule("score", None, {})


def fit_rules(candidates: pd.DataFrame, truth: pd.DataFrame, sizes: Sizes) -> dict[str, SelectionRule]:
    """All rules, learned from the images that ``truth`` (image_id, corners, label) has boxes on.

    A candidate is right if it would be a hit as the only box of its image. Candidates of other images are
    left out; without a right and a wrong one there is nothing to learn, and all rules are the score's.
    """
    seen = candidates[candidates["image_id"].isin(truth["image_id"])]
    learned = calibration.fit(seen, hits_alone(truth, seen, MATCH_IOU), sizes)
    shares = truth["label"].value_counts(normalize=True).sort_index()
    frequency = {str(label): float(share) for label, share in shares.items()} if learned else {}
    return {
        "calibrated-frequency": SelectionRule("calibrated-frequency", learned, frequency),
        "calibrated": SelectionRule("calibrated", learned, {}),
        "score": SCORE,
    }


def judge_out_of_fold(
    candidates: pd.DataFrame, truth: pd.DataFrame, sizes: Sizes, groups: Mapping[str, int]
) -> dict[str, pd.DataFrame]:
    """By rule, the candidates as rules judge them that never saw their group; ``groups`` numbers every image."""
    of_candidate = candidates["image_id"].map(groups).to_numpy(np.int64)
    of_truth = truth["image_id"].map(groups).to_numpy(np.int64)
    parts = []
    for group in sorted(set(groups.values())) or [0]:
        rules = fit_rules(candidates[of_candidate != group], truth[of_truth != group], sizes)
        own = candidates[of_candidate == group]
        parts.append({name: rule.judge(own, sizes) for name, rule in rules.items()})
    return {name: pd.concat([part[name] for part in parts]).sort_index() for name in RULE_NAMES}


def patient_groups(
    truth: pd.DataFrame, image_ids: Iterable[str], patients: Mapping[str, str], seed: int, count: int = CROSS_FITS
) -> dict[str, int]:
    """Each image's group, 0 to ``count`` - 1: whole patients, classes and images spread evenly.

    ``truth`` has image_id and label. Uneven classes would bias the cross-fit: a group with more of a class would
    be judged by images that have less of it. Fewer patients than groups leave groups empty.
    """
    images_of: dict[str, list[str]] = {}
    for image_id in sorted(image_ids):
        images_of.setdefault(patients[image_id], []).append(image_id)
    people = [images_of[patient] for patient in sorted(images_of)]
    _, counts = count_boxes(truth, people)
    group_of, _ = balanced_folds(counts, count, seed)
    return {image_id: int(group) for images, group in zip(people, group_of, strict=True) for image_id in images}


def choose_rule(
    answered: Mapping[str, Matches], patients: Mapping[str, str], seed: int
) -> tuple[str, dict[tuple[str, str], Intervals]]:
    """The rule to use, and the paired differences (first rule minus second) that decided it.

    In the order calibrated-frequency, calibrated, score: the first that is not measurably worse than any that
    comes after it, that is, no paired 95% interval of it against them lies wholly below 0. So dividing by the
    frequency is the default unless it loses against p alone, and neither is used where it loses against the
    plain score. Where nothing can be measured (fewer than two patients), the score. ``answered`` holds each
    rule's matched answers on the same images.
    """
    differences = {
        (rule, other): paired_difference(answered[rule], answered[other], patients, seed)
        for place, rule in enumerate(RULE_NAMES)
        for other in RULE_NAMES[place + 1 :]
    }
    highs = {pair: found.overall.high for pair, found in differences.items()}
    if any(np.isnan(high) for high in highs.values()):
        return "score", differences
    lost = {rule for (rule, _), high in highs.items() if high < 0}
    return next(rule for rule in RULE_NAMES if rule not in lost), differences


def oracle(judged: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The ceiling: right candidates first, with confidence 1, all others after them with confidence 0.

    No rule scores higher with these candidates, however it chooses and whatever confidence it gives.
    """
    images = {*judged["image_id"], *truth["image_id"]}
    found = match(truth, judged[["image_id", *CORNERS, "score", "label"]], images)
    right = np.zeros(len(judged))
    for part in found.classes.values():
        right[part.rows[part.hits]] = 1.0
    return judged.assign(confidence=right, value=right)


def shuffled(judged: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The floor of choosing: any candidate as likely as another, with the confidence that it has."""
    value: Float64[np.ndarray, " n"] = rng.random(len(judged))
    return judged.assign(value=value)
