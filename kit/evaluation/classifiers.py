"""How informative the image scores of an ensemble's classifiers are by themselves, before any box is chosen."""

from __future__ import annotations

import numpy as np

from kit.evaluation.held_out import HeldOut
from kit.metrics.ranking import area_under_roc
from kit.reports.report_file import ClassifierScore
from kit.runs.image_scores import held_out_scores


def classifier_scores(held: HeldOut) -> dict[str, dict[str, ClassifierScore]]:
    """By classifier and label the AUC on the held-out images that have a score; none without classifiers.

    An image shows a label if it has a true box of it.
    """
    shown = set(zip(held.truth["image_id"], held.truth["label"], strict=True))
    found: dict[str, dict[str, ClassifierScore]] = {}
    for name, table in held_out_scores(held.run).items():
        rows = table[table["image_id"].isin(held.split.validation)]
        for label, of_label in rows.groupby("label", sort=True):
            images = of_label["image_id"].tolist()
            positive = np.array([(image_id, label) in shown for image_id in images], dtype=bool)
            area = area_under_roc(
                of_label["score"].to_numpy(np.float64), positive, images, held.patients, held.config.training.seed
            )
            found.setdefault(name, {})[str(label)] = ClassifierScore(
                area.value, area.low, area.high, len(images), int(positive.sum())
            )
    return found
