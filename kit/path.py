"""The last steps of the scored path for test images: judged within each fold, joined over the folds.

Held-out images have the detections of one fold and end with the judging; the joining cannot be scored on any
image that the folds were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kit.boxes.fusion import weighted_boxes_fusion
from kit.boxes.geometry import Sizes
from kit.choosing.selection import Rule
from kit.config import FusionConfig
from kit.runs.members import Member, by_fold, fused


def candidates_for_test(
    detections: pd.DataFrame,
    members: Sequence[Member],
    config: FusionConfig,
    rule: Rule,
    sizes: Sizes,
    threshold: float = 0.0,
) -> pd.DataFrame:
    """The judged candidates of test images: fused and calibrated within each fold, then joined.

    Fused candidates scored below ``threshold`` are left out, as on the held-out images.
    """
    tables = [fused(rows, members, config) for rows in by_fold(detections, members)]
    # Judged before any is left out, as on the held-out images: each is the others' rival.
    judged = [part[part["score"] >= threshold] for part in (rule.judge(table, sizes) for table in tables)]
    return joined(judged, rule, config.iou)


def joined(judged: Sequence[pd.DataFrame], rule: Rule, iou: float) -> pd.DataFrame:
    """The folds' judged candidates as one list: overlapping boxes of a class averaged, the rule's value anew.

    All folds have the same weight. A box that each of some folds found once gets the sum of their confidences
    over the number of all folds: one that did not find it counts 0. One fold alone is left as it is.
    """
    if len(judged) == 1:
        return judged[0]
    folds = [part.assign(run=str(number), view="", score=part["confidence"]) for number, part in enumerate(judged)]
    sources = [(str(number), "") for number in range(len(judged))]
    averaged = weighted_boxes_fusion(_stacked(folds), sources, iou)
    return rule.valued(averaged.assign(confidence=averaged["score"]))


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
