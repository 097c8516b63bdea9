"""Grouped, balanced k-fold: whole groups of images are dealt to folds, classes and images spread evenly. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int64

CROSS_FITS = 5  # folds in which priors, calibrations and rules are fitted to all images but those they judge


def count_boxes(
    boxes: pd.DataFrame, groups: Sequence[Sequence[str]]
) -> tuple[list[str], Int64[np.ndarray, "g columns"]]:
    """The labels of ``boxes`` (image_id, label), sorted, and for each group its boxes by label and its images.

    A column per label, and one more for the number of images. Every image_id of ``boxes`` is in one group; zero
    boxes give the column of images alone.
    """
    labels = sorted(set(boxes["label"]))
    group_of = {image_id: index for index, group in enumerate(groups) for image_id in group}
    column_of = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(groups), len(labels) + 1), dtype=np.int64)
    rows, columns = boxes["image_id"].map(group_of), boxes["label"].map(column_of)
    np.add.at(counts, (rows.to_numpy(np.int64), columns.to_numpy(np.int64)), 1)
    counts[:, -1] = [len(group) for group in groups]
    return labels, counts


def random_orders(groups: int, seed: int, candidates: int) -> Int64[np.ndarray, "candidates g"]:
    """A random order of the groups for each candidate, each from a generator of its own."""
    return np.stack([np.random.default_rng([seed, number]).permutation(groups) for number in range(candidates)])


def balanced_folds(
    counts: Int64[np.ndarray, "g columns"], folds: int, seed: int, candidates: int = 1
) -> tuple[Int64[np.ndarray, " g"], Int64[np.ndarray, "folds columns"]]:
    """The fold of each group, 0 to ``folds`` - 1, and what each fold then holds.

    Each candidate takes the groups, those with most images first and equals in a random order, and puts each into
    the fold that adds least to the sum of squared shares. The candidate whose shares are nearest to equal wins;
    one that leaves a column out of a fold wins only if all do. Fewer groups than folds leave folds empty.

    Args:
        counts: What each group holds, such as ``count_boxes`` gives; the images in the last column.
        folds: How many folds.
        seed: Of the random orders.
        candidates: How many orders are tried.
    """
    images, total = counts[:, -1], np.maximum(counts.sum(axis=0), 1)
    orders = random_orders(len(counts), seed, candidates)
    orders = np.stack([order[np.argsort(-images[order], kind="stable")] for order in orders])
    fold_of, filled = _deal(counts, counts / np.square(total), orders, folds)
    imbalance = np.square(filled / total - 1 / folds).sum(axis=(1, 2))
    lacking = (filled == 0).any(axis=(1, 2))
    best = int(np.lexsort((imbalance, lacking))[0])
    return fold_of[best], filled[best]


def _deal(
    counts: Int64[np.ndarray, "g columns"],
    weights: np.ndarray,
    orders: Int64[np.ndarray, "candidates g"],
    folds: int,
) -> tuple[Int64[np.ndarray, "candidates g"], Int64[np.ndarray, "candidates folds columns"]]:
    """Each candidate's fold of each group, and what its folds then hold; all candidates advance together.

    Adding g to a fold that holds c changes the sum of squared shares by (2 c g + g g) / total², of which only
    c g differs between the folds. Whole numbers in ``filled`` give equal folds equal costs, whatever their order.
    """
    candidate = np.arange(len(orders))
    filled = np.zeros((len(orders), folds, counts.shape[1]), dtype=np.int64)
    fold_of = np.zeros(orders.shape, dtype=np.int64)
    for group in orders.T:
        fold = np.einsum("cfl,cl->cf", filled, weights[group]).argmin(axis=1)
        filled[candidate, fold] += counts[group]
        fold_of[candidate, group] = fold
    return fold_of, filled
