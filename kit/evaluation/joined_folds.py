"""The candidates of test images on the scored path: judged within each fold, joined over the folds.

A held-out image has the detections of one fold, so nothing is joined there; the joining cannot be scored on images
that the folds were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from kit.boxes.fusion import weighted_boxes_fusion
from kit.boxes.geometry import Sizes
from kit.choosing.image_evidence import evidence_columns, with_image_evidence
from kit.choosing.places import Places, with_places
from kit.choosing.selection import SelectionRule
from kit.config import FusionConfig
from kit.reports.report_file import Report
from kit.runs.image_scores import scores_by_fold
from kit.runs.members import Member, by_fold, fused


def candidates_by_report(
    report: Report,
    detections: pd.DataFrame,
    members: Sequence[Member],
    sizes: Sizes,
    scores: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """The judged candidates of test images as a run's report judges them, with the sides that it gives them.

    ``predict`` and the page of a submission both take them from here. ``scores`` are the image scores of the test
    images by classifier, if there are any.
    """
    candidates = candidates_for_test(
        detections, members, report.fusion, report.decision.rule, sizes, report.threshold.applied, report.places,
        scores,
    )  # fmt: skip
    return report.box_scale.applied(candidates, sizes) if report.box_scale else candidates


def candidates_for_test(
    detections: pd.DataFrame,
    members: Sequence[Member],
    config: FusionConfig,
    rule: SelectionRule,
    sizes: Sizes,
    threshold: float = 0.0,
    places: Places | None = None,
    scores: Mapping[str, pd.DataFrame] | None = None,
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
        scores: By classifier its image scores of the test images, of all folds; the rule may use them or not.

    Returns:
        Candidates with the columns that `decide` needs.
    """
    used = {name: table for name, table in (scores or {}).items() if _uses(rule, name)}
    folds = max([1, *(1 + table["fold"].max() for table in used.values() if len(table))])
    tables = [
        with_image_evidence(
            fused(rows, members, config), {name: scores_by_fold(table, index) for name, table in used.items()}
        )
        for index, rows in enumerate(by_fold(detections, members, folds))
    ]
    if places:
        tables = [with_places(table, places, sizes) for table in tables]
    # Judged before any is left out, as on the held-out images: a candidate's rivals count in its probability.
    judged = [rule.judge(table, sizes) for table in tables]
    return joined([table[table["score"] >= threshold] for table in judged], rule, config.least_iou)


def _uses(rule: SelectionRule, classifier: str) -> bool:
    terms = rule.calibration.extra if rule.calibration else {}
    return any(column in terms for column in evidence_columns([classifier]))


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
