"""Whether adopted boxes have the labels of the true boxes that they lie on, or labels in another order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit.boxes.nearest_truth import nearest_true_boxes

_LEAST_BOXES = 20  # fewer fit some other order by chance
_SELDOM = 0.25  # of the boxes have the label of the true one: with the labels in another order hardly any
_MOSTLY = 0.75  # of them have it, if each label is read as another
_SURE = 4  # standard deviations above what labels drawn at random would fit


def labels_on_truth(rows: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """The label and true_label of each image's surest box that overlaps a true one by half; zero rows are fine.

    Where a box of its own label and another one are as near, the own one counts.
    """
    own, other = nearest_true_boxes(truth, rows)
    nearest = np.where(own.iou >= other.iou, own.truth, other.truth)
    on_truth = np.maximum(own.iou, other.iou) >= 1 / 2
    pairs = rows[on_truth].assign(true_label=truth["label"].to_numpy()[nearest[on_truth]])
    surest = pairs.sort_values("score", kind="stable").groupby("image_id").tail(1)
    return surest[["label", "true_label"]].reset_index(drop=True)


def agreement(pairs: pd.DataFrame) -> str:
    """How many of these boxes have the true label, in words: "0 of 32"."""
    return f"{int((pairs['label'] == pairs['true_label']).sum())} of {len(pairs)}"


def other_order(pairs: pd.DataFrame) -> str:
    """The order of labels that the boxes fit far better, in words; empty without one.

    A weak detector has wrong labels too, but reading each label as one other does not make most of them right.
    """
    from scipy.optimize import linear_sum_assignment

    if len(pairs) < _LEAST_BOXES or (pairs["label"] == pairs["true_label"]).mean() > _SELDOM:
        return ""
    counts = pd.crosstab(pairs["label"], pairs["true_label"])
    found, meant = linear_sum_assignment(counts, maximize=True)
    table, count = counts.to_numpy(), len(pairs)
    fitting = int(table[found, meant].sum())
    chance = float((table.sum(axis=1)[found] * table.sum(axis=0)[meant]).sum()) / count**2
    above = fitting - chance * count
    if fitting < _MOSTLY * count or above <= _SURE * np.sqrt(count * chance * (1 - chance)):
        return ""
    moves = [
        f"{counts.index[i]} as {counts.columns[j]}"
        for i, j in zip(found, meant, strict=True)
        if counts.index[i] != counts.columns[j] and counts.iloc[i, j]
    ]
    return f"{fitting} have it if they are read in another order: {', '.join(moves)}"
