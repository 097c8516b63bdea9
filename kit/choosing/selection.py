"""The rules that select an image's one box, their cross-fitting, and the choice among them.

A rule gives each candidate a confidence, which is submitted, and a value, by which the best candidate is selected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
    """``score`` selects the highest score, ``calibrated`` the highest p(true positive).

    ``calibrated-frequency`` selects the highest p divided by the class's share of the true boxes: the mAP is a mean
    over classes, so a hit of a rare class counts more. The confidence is the score, or p.
    """

    name: str
    calibration: Calibration | None  # None: the score is the confidence
    frequency: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.name not in RULE_NAMES:
            raise ValueError(f"a rule is one of {', '.join(RULE_NAMES)}, not {self.name!r}")
        if not all(0 < share <= 1 for share in self.frequency.values()):
            raise ValueError("a class's share of the true boxes lies above 0, and is 1 at most")

    def judge(self, candidates: pd.DataFrame, sizes: Sizes) -> pd.DataFrame:
        """The candidates (image_id, corners, score, label, agreement) with a confidence and a value."""
        if self.calibration is None:
            confidence = np.clip(candidates["score"].to_numpy(np.float64), 0, 1)
        else:
            confidence = calibration.probability(self.calibration, candidates, sizes)
        return self.valued(candidates.assign(confidence=confidence))

    def valued(self, judged: pd.DataFrame) -> pd.DataFrame:
        """The candidates with the value that follows from their confidence and label."""
        value = judged["confidence"].to_numpy(np.float64)
        if self.name == "calibrated-frequency" and self.frequency:
            rarest = min(self.frequency.values())  # of a class without true boxes
            label, labels = pd.factorize(judged["label"])
            value = value / np.array([self.frequency.get(name, rarest) for name in labels])[label]
        return judged.assign(value=value)


SCORE = SelectionRule("score", None, {})


def fit_rules(
    candidates: pd.DataFrame, truth: pd.DataFrame, sizes: Sizes, extra: Sequence[str] = ()
) -> dict[str, SelectionRule]:
    """All rules, learned from the images on which ``truth`` (image_id, corners, label) has boxes.

    A candidate is right if it would be a hit as the only box of its image. Candidates of other images are left
    out. If all candidates are right, or none, there is nothing to learn, and each rule selects by the score.
    ``extra`` are columns of the candidates that are further terms of p.
    """
    candidates = candidates[candidates["image_id"].isin(truth["image_id"])]
    learned = calibration.fit(candidates, hits_alone(truth, candidates, MATCH_IOU), sizes, extra)
    shares = truth["label"].value_counts(normalize=True).sort_index()
    frequency = {str(label): float(share) for label, share in shares.items()} if learned else {}
    return {
        "calibrated-frequency": SelectionRule("calibrated-frequency", learned, frequency),
        "calibrated": SelectionRule("calibrated", learned, {}),
        "score": SCORE,
    }


def judge_out_of_fold(
    candidates: pd.DataFrame | Mapping[int, pd.DataFrame],
    truth: pd.DataFrame,
    sizes: Sizes,
    groups: Mapping[str, int],
    extra: Sequence[str] = (),
) -> dict[str, pd.DataFrame]:
    """By rule, the candidates with confidence and value, each group's from rules fitted on the other groups.

    ``groups`` has the number of every image's group, ``extra`` the columns that are further terms of p. Candidates
    of all images by group are those that its rules learn from and judge; the rows are then sorted by image.
    """
    truth_group = truth["image_id"].map(groups).to_numpy(np.int64)
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in RULE_NAMES}
    for group in sorted(set(groups.values())) or [0]:
        table = candidates if isinstance(candidates, pd.DataFrame) else candidates[group]
        inside = table["image_id"].map(groups).to_numpy(np.int64) == group
        rules = fit_rules(table[~inside], truth[truth_group != group], sizes, extra)
        for name, rule in rules.items():
            tables[name].append(rule.judge(table[inside], sizes))
    if isinstance(candidates, pd.DataFrame):
        return {name: pd.concat(judged).sort_index() for name, judged in tables.items()}
    return {
        name: pd.concat(judged).sort_values("image_id", kind="stable", ignore_index=True)
        for name, judged in tables.items()
    }


def patient_groups(
    truth: pd.DataFrame, image_ids: Iterable[str], patients: Mapping[str, str], seed: int, count: int = CROSS_FITS
) -> dict[str, int]:
    """Each image's group, 0 to ``count`` - 1: whole patients, classes and images spread evenly.

    Uneven classes would bias the cross-fit: a group with more of a class would be judged by images that have less
    of it. Fewer patients than groups leave groups empty.

    Args:
        truth: The true boxes: image_id and label.
        image_ids: The images to group.
        patients: The patient by image.
        seed: Draws the candidates.
        count: The number of groups.
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
    """The rule to use, and the paired differences (first rule minus second) that decide it.

    In the order calibrated-frequency, calibrated, score it is the first rule that is not measurably worse than a
    later one: no paired 95% interval of their difference lies below 0. With fewer than two patients nothing can
    be measured, and it is ``score``. ``answered`` holds each rule's matched answers on the same images.
    """
    differences = {
        (rule, other): paired_difference(answered[rule], answered[other], patients, seed)
        for index, rule in enumerate(RULE_NAMES)
        for other in RULE_NAMES[index + 1 :]
    }
    if any(np.isnan(gap.overall.high) for gap in differences.values()):
        return "score", differences
    worse = {rule for (rule, _), gap in differences.items() if gap.overall.below_0}
    return next(rule for rule in RULE_NAMES if rule not in worse), differences


def oracle(judged: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The upper bound: candidates that are hits have confidence and value 1, all others 0.

    Hits are found in the order of the scores. No rule scores higher on these candidates, unless two true boxes of a
    class overlap and IDs share an image: a rule may then match them in a better order.
    """
    images = {*judged["image_id"].unique(), *truth["image_id"].unique()}
    matches = match(truth, judged[["image_id", *CORNERS, "score", "label"]], images)
    right = np.zeros(len(judged))
    for matched in matches.classes.values():
        right[matched.rows[matched.hits]] = 1.0
    return judged.assign(confidence=right, value=right)


def shuffled(judged: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The lower bound: random values, so that each candidate is equally likely; confidences are kept."""
    value: Float64[np.ndarray, " n"] = rng.random(len(judged))
    return judged.assign(value=value)
