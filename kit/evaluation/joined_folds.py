"""The candidates of test images on the scored path: judged within each fold, joined over the folds.

A held-out image has the detections of one fold, so nothing is joined there; the joining cannot be scored on images
that the folds were trained on.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kit.boxes.fusion import weighted_boxes_fusion
from kit.boxes.geometry import Sizes
from kit.choosing.places import Places, with_places
from kit.choosing.selection import SelectionRule
from kit.config import FusionConfig
from kit.reports.report_file import Report
from kit.runs.members import Member, by_fold, fused


def candidates_by_report(
    report: Report, detections: pd.DataFrame, members: Sequence[Member], sizes: Sizes
) -> pd.DataFrame:
    """The judged candidates of test images as a run's report judges them, with the sides that it gives them.

    Whoever answers test images, or shows what could have been answered, has them from here.
    """
    candidates = candidates_for_test(
        detections, members, report.fusion, report.decision.rule, sizes, report.threshold.applied, report.places
    )
    return report.box_scale.applied(candidates, sizes) if report.box_scale else candidates


def candidates_for_test(
    detections: pd.DataFrame,
    members: Sequence[Member],
    config: FusionConfig,
    rule: SelectionRule,
    sizes: Sizes,
    threshold: float = 0.0,
    places: Places | None = None,
) -> pd.DataFrame:
    """The judged candidates of test images: fused and calibrated within each fold, then joined.

    Args:
        detections: The stored raw detections of all folds and members.
        members: The run itself, or the members of an ensemble.
        config: How views and members are fused.
        rule: Judges the candidates of each fold.
        sizes: Width and height in pixels, by image_id.
        threshold: Fused candidates with a lower score are left out, as on the held-out images.
        places: The usual places of the classes, if the rule has them as terms.

    Returns:
        Candidates with the columns that `decide` needs.
    """
    tables = [fused(rows, members, config) for rows in by_fold(detections, members)]
    if places:
        tables = [with_places(table, places, sizes) for table in tables]
    # Judged before any is left out, as on the held-out images: a candidate's rivals count in its probability.
    judged = [rule.judge(table, sizes) for table in tables]
    return joined([table[table["score"] >= threshold] for table in judged], rule, config.least_iou)


def joined(judged: Sequence[pd.DataFrame], rule: SelectionRule, iou: float) -> pd.DataFrame:
    """The folds' judged candidates as one list: overlapping boxes of a class averaged, the rule's value anew.

    All folds have the same weight: a box gets the sum of its confidences over the number of folds, and a fold
    without that box counts 0. A single fold is left as it is.
    """
    if len(judged) == 1:
        return judged[0]
    folds = [
        table.assign(run=str(number), view="", score=table["confidence"]) for number, table in enumerate(judged)
    ]
    sources = [(str(number), "") for number in range(len(judged))]
    averaged = weighted_boxes_fusion(_stacked(folds), sources, iou)
    return rule.valued(averaged.assign(confidence=averaged["score"]))


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
