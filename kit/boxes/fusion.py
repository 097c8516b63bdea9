"""Fuse the detections of many views and runs to one list of candidates: suppression, or weighted boxes fusion.

Boxes are fused within one image and one class only: findings of different classes may overlap. The kinds of
weighted boxes fusion differ in the score of a cluster alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from kit.boxes.geometry import CORNERS, area, intersection, iou_pairs
from kit.config import FusionConfig

# ``agreement``: the share of the sources (views and runs) that have a box in the candidate. ``spread``: how far the
# corners of its boxes lie from their mean, weighted by the scores, as a share of its side; NaN of a single box.
CANDIDATE_COLUMNS = ["image_id", *CORNERS, "score", "label", "agreement", "spread"]
Sources = Sequence[tuple[str, str]]  # (run, view) pairs; each has seen every image of a table
# Groups fused at once: enough to amortise numpy's calls, few enough to fit the processor's cache.
_GROUPS_AT_ONCE = 2048
# A cluster whose scores are all 0 would have no mean box.
_LEAST_SCORE = 1e-30


def fuse(
    detections: pd.DataFrame, config: FusionConfig, sources: Sources, weights: Sequence[float] | None = None
) -> pd.DataFrame:
    """Fuse the detections of ``sources`` to candidates, by the method of ``config``, which is not ``auto``.

    A source counts also on images where it found nothing; rows of other sources, and those of a score below
    ``config.skip_score``, are left out. ``weights`` (one per source, by default all 1) do not act on ``suppress``.
    The candidates are sorted by image_id, then by falling score; zero detections give zero candidates.
    """
    return fusing(detections, sources, weights)(config)


def fusing(
    detections: pd.DataFrame, sources: Sources, weights: Sequence[float] | None = None
) -> Callable[[FusionConfig], pd.DataFrame]:
    """``fuse`` for one configuration after the other; neighbours that share their clusters share the work."""
    known = detections[_source_numbers(detections, sources) >= 0]

    @functools.lru_cache(maxsize=1)
    def clusters(iou: float, skip_score: float) -> Clusters:
        return cluster(votes(known, skip_score), sources, iou, weights)

    def fused(config: FusionConfig) -> pd.DataFrame:
        if config.method == "suppress":
            return suppress(votes(known, config.skip_score), sources, config.least_iou)
        return clusters(config.least_iou, config.skip_score).candidates(config.method)

    return fused


def votes(detections: pd.DataFrame, skip_score: float) -> pd.DataFrame:
    """The detections of score ``skip_score`` or more."""
    return detections[detections["score"] >= skip_score] if skip_score > 0 else detections


def suppress(detections: pd.DataFrame, sources: Sources, iou: float) -> pd.DataFrame:
    """Greedy suppression per image and class over all rows: views, runs and folds are pooled.

    By falling score (ties in the order of the table) a box is kept unless its IoU with a kept one is above
    ``iou``, as in torchvision's ``nms``. Its agreement counts its own source and those of the boxes that it
    suppresses. The candidates are sorted by image_id, then by falling score. Raises ValueError for a row that is
    of none of the sources.
    """
    source = _known_sources(detections, sources)
    boxes, scores = _boxes(detections), _scores(detections)
    groups, _, _ = _groups(detections)
    remaining = np.lexsort((-scores, groups))
    kept_by = np.arange(len(detections))  # for each box the one that suppresses it, else itself
    while len(remaining):
        # One round for all groups: the best box of each is kept and suppresses the boxes that overlap it.
        leads = np.diff(groups[remaining], prepend=-1) != 0
        others, leader = remaining[~leads], remaining[leads][np.cumsum(leads) - 1][~leads]
        free = iou_pairs(boxes[others], boxes[leader]) <= iou
        kept_by[others[~free]] = leader[~free]
        remaining = others[free]
    rows = np.flatnonzero(kept_by == np.arange(len(detections)))
    candidate = np.searchsorted(rows, kept_by)
    has_source = np.zeros((len(rows), len(sources)), dtype=bool)
    has_source[candidate, source] = True
    kept = detections.iloc[rows]
    agreement = has_source.sum(axis=1) / len(sources)
    spread = _spread_about_kept(boxes, np.maximum(scores, _LEAST_SCORE), candidate, rows)
    return _candidates(kept["image_id"], boxes[rows], scores[rows], kept["label"], agreement, spread)


def _spread_about_kept(
    boxes: Float64[np.ndarray, "n 4"],
    weights: Float64[np.ndarray, " n"],
    candidate: Int64[np.ndarray, " n"],
    rows: Int64[np.ndarray, " c"],
) -> Float64[np.ndarray, " c"]:
    """The spread of each kept box and those that it suppresses; ``boxes[rows[candidate]]`` is the one kept."""
    aside = boxes - boxes[rows[candidate]]
    table = np.column_stack([np.ones(len(boxes)), aside, np.square(aside).sum(axis=1)]) * weights[:, None]
    sums = np.zeros((len(rows), table.shape[1]))
    np.add.at(sums, candidate, table)
    totals, squares = sums[:, 0], sums[:, -1] - np.square(sums[:, 1:-1]).sum(axis=1) / sums[:, 0]
    return _spread(squares, totals, np.bincount(candidate, minlength=len(rows)), boxes[rows])


def weighted_boxes_fusion(
    detections: pd.DataFrame,
    sources: Sources,
    iou: float,
    weights: Sequence[float] | None = None,
    method: str = "wbf",
) -> pd.DataFrame:
    """The candidates of the clusters (``cluster``), with the scores of a method (``Clusters.candidates``)."""
    return cluster(detections, sources, iou, weights).candidates(method)


@dataclass(frozen=True)
class Clusters:
    """Overlapping boxes averaged, and what their score may be made of; ordered by image, then by class."""

    image_ids: pd.Index
    labels: pd.Index
    boxes: Float64[np.ndarray, "c 4"]
    means: Float64[np.ndarray, " c"]  # of the weighted scores
    misses: Float64[np.ndarray, " c"]  # logarithm of the chance that all members are wrong
    members: Int64[np.ndarray, " c"]
    agreement: Float64[np.ndarray, " c"]  # share of the sources
    spread: Float64[np.ndarray, " c"]
    sources: int
    weight: float  # sum of the sources' weights

    def candidates(self, method: str) -> pd.DataFrame:
        """The clusters as candidates, sorted by image_id, then by falling score, ties by label.

        The score of a cluster, with p the members' scores and w the weights of their sources, is by method

        - ``wbf``: the mean of w p, times min(members, sources) / sum of the sources' weights: a finding of few
          sources is trusted less.
        - ``wbf_sum``: min(1, sum of w p / sum of the sources' weights): members beyond the sources count too.
        - ``wbf_or``: 1 - prod((1 - p) ** w): the chance that one of the members is right, if they err
          independently.
        """
        scores = {
            "wbf": lambda: self.means * np.minimum(self.members, self.sources) / self.weight,
            "wbf_sum": lambda: np.minimum(1.0, self.means * self.members / self.weight),
            "wbf_or": lambda: -np.expm1(self.misses),
        }[method]()
        return _candidates(self.image_ids, self.boxes, scores, self.labels, self.agreement, self.spread)


def cluster(
    detections: pd.DataFrame, sources: Sources, iou: float, weights: Sequence[float] | None = None
) -> Clusters:
    """Average overlapping boxes of one image and class, weighted by their scores: weighted boxes fusion.

    A box joins the cluster that it overlaps most if their IoU is above ``iou``, else it opens a new one. Boxes
    without area are left out.

    Source: Solovyev et al., Weighted boxes fusion (2021). With ``wbf`` equal to ``ensemble-boxes`` 1.0.9 with
    ``avg`` down to its order of ties and its float32 sums, and far faster: all images and classes advance together.

    Args:
        detections: rows of image_id, corners, score, label, run and view; an image's rows come from one fold.
        sources: (run, view) pairs; each counts also on images where it found nothing.
        iou: lowest overlap, exclusive, of a box and the cluster that it joins.
        weights: a positive number per source; by default all 1.

    Raises:
        ValueError: a weight is missing or not positive, or a row is of none of the sources.
    """
    given = np.ones(len(sources)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(given) != len(sources) or not (given > 0).all() or not np.isfinite(given).all():
        raise ValueError(f"one positive weight per source ({len(sources)}), not {weights}")
    # In the boxes and the means only their ratios count, and large ones would overflow. A power of two rounds
    # nothing: a division by the largest would, and an IoU at the limit would fall on its other side.
    factors = np.ldexp(given, -np.frexp(given.max())[1])
    detections = detections[area(_boxes(detections)) > 0]
    source = _known_sources(detections, sources)
    boxes, p = _boxes(detections), _scores(detections)
    scores = np.maximum(p * factors[source], _LEAST_SCORE)
    with np.errstate(divide="ignore"):
        missed = given[source] * np.log1p(-np.minimum(p, 1))
    keys, images, labels = _groups(detections)
    blocks = [_clusters(boxes, scores, missed, source, ranked, iou) for ranked in _blocks(keys, source, scores)]
    nothing = (*np.zeros((3, 0), dtype=np.int64), np.zeros((0, 4)), *np.zeros((3, 0)))
    columns = map(np.concatenate, zip(*(blocks or [nothing]), strict=True))
    first, members, agreeing, fused, means, misses, spread = columns
    order = np.argsort(keys[first], kind="stable")
    image, label = np.divmod(keys[first][order], max(len(labels), 1))
    return Clusters(
        images[image], labels[label], fused[order], means[order], misses[order], members[order],
        agreeing[order] / len(sources), spread[order], len(sources), float(factors.sum()),
    )  # fmt: skip


def _clusters(
    boxes: Float64[np.ndarray, "n 4"],
    scores: Float64[np.ndarray, " n"],
    missed: Float64[np.ndarray, " n"],
    source: Int64[np.ndarray, " n"],
    ranked: Int64[np.ndarray, "g r"],
    iou: float,
) -> tuple[
    Int64[np.ndarray, " c"], Int64[np.ndarray, " c"], Int64[np.ndarray, " c"], Float64[np.ndarray, "c 4"],
    Float64[np.ndarray, " c"], Float64[np.ndarray, " c"], Float64[np.ndarray, " c"],
]:  # fmt: skip
    """Cluster the groups of a block, rank by rank; a row of ``ranked`` is a group: row numbers, filled up with -1.

    Returns for each cluster: a row of its group, its number of boxes, its number of different sources, its box, its
    mean score, the sum of ``missed`` and its spread.
    """
    shape = ranked.shape
    corners, means, totals, misses, squares = np.zeros((*shape, 4)), *np.zeros((4, *shape))
    # The reference sums the weighted corners in float32, which can decide the cluster that a box joins.
    sums = np.zeros((*shape, 4), dtype=np.float32)
    members, opened = np.zeros(shape, dtype=np.int64), np.zeros(len(ranked), dtype=np.int64)
    has_source = np.zeros((*shape, source.max() + 1), dtype=bool)
    for column in ranked.T:
        group = np.flatnonzero(column >= 0)
        box, value = boxes[column[group]], scores[column[group]]
        # One more column than any group has clusters: for a first box the argmax finds overlap 0 there.
        overlap = _overlap(box, corners[group, : opened.max() + 1])
        best = overlap.argmax(axis=1)
        joins = overlap[np.arange(len(group)), best] > iou
        cell = (group, np.where(joins, best, opened[group]))
        opened[group] += ~joins
        members[cell] += 1
        has_source[(*cell, source[column[group]])] = True
        totals[cell] += value
        misses[cell] += missed[column[group]]
        sums[cell] = (sums[cell] + value[:, None] * box).astype(np.float32)
        mean_box = (sums[cell] / totals[cell][:, None]).astype(np.float32)
        # West, Updating mean and variance estimates (1979): the first box of a cluster adds nothing.
        squares[cell] += value * np.where(joins, ((box - corners[cell]) * (box - mean_box)).sum(axis=1), 0)
        corners[cell] = np.where(joins[:, None], mean_box, box)
        means[cell] = np.where(joins, (totals[cell] / members[cell]).astype(np.float32), value)
    group, cluster = np.nonzero(members)
    cell = (group, cluster)
    agreeing = has_source[cell].sum(axis=1)
    spread = _spread(squares[cell], totals[cell], members[cell], corners[cell])
    return ranked[group, 0], members[cell], agreeing, corners[cell], means[cell], misses[cell], spread


def _spread(
    squares: Float64[np.ndarray, " c"],
    totals: Float64[np.ndarray, " c"],
    members: Int64[np.ndarray, " c"],
    boxes: Float64[np.ndarray, "c 4"],
) -> Float64[np.ndarray, " c"]:
    """The root mean square distance of the members' corners from their mean, as a share of the box's mean side.

    ``squares`` has the weighted sums of the squared distances of all four corners, ``totals`` the sums of weights.
    NaN of a single member, and of a box without area.
    """
    size = area(boxes)
    known = (members > 1) & (size > 0)
    ratio = np.divide(np.maximum(squares, 0), 4 * totals * size, out=np.full(len(size), np.nan), where=known)
    return np.sqrt(ratio)


def _overlap(box: Float64[np.ndarray, "g 4"], clusters: Float64[np.ndarray, "g c 4"]) -> np.ndarray:
    """IoU of each group's box with its clusters; 0 with a cluster that is not open yet (all zeros)."""
    shared = intersection(box[:, None], clusters)
    return shared / (area(box)[:, None] + area(clusters) - shared)


def _blocks(
    keys: Int64[np.ndarray, " n"], source: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]
) -> Iterator[Int64[np.ndarray, "g r"]]:
    """Groups of similar size as matrices of row numbers by falling score, filled up with -1."""
    rows = np.lexsort((source, keys))
    starts = np.flatnonzero(np.diff(keys[rows], prepend=-1))
    sizes = np.diff(np.append(starts, len(rows)))
    for start, size in zip(starts, sizes, strict=True):
        group = rows[start : start + size]
        # The same unstable sort as in the reference, so that ties have the same order.
        rows[start : start + size] = group[scores[group].argsort()[::-1]]
    doublings = np.ceil(np.log2(sizes))
    for doubling in np.unique(doublings):
        alike = np.flatnonzero(doublings == doubling)
        for begin in range(0, len(alike), _GROUPS_AT_ONCE):
            block = alike[begin : begin + _GROUPS_AT_ONCE]
            rank = np.arange(sizes[block].max())
            inside = rank < sizes[block, None]
            yield np.where(inside, rows[np.where(inside, starts[block, None] + rank, 0)], -1)


def _known_sources(detections: pd.DataFrame, sources: Sources) -> Int64[np.ndarray, " n"]:
    numbers = _source_numbers(detections, sources)
    if (numbers < 0).any():
        unknown = detections[["run", "view"]].iloc[int(np.argmax(numbers < 0))]
        raise ValueError(f"detections of {tuple(unknown)}, which is not among the sources {list(sources)}")
    return numbers


def _source_numbers(detections: pd.DataFrame, sources: Sources) -> Int64[np.ndarray, " n"]:
    """Each row's index in ``sources``; -1 if it is of none of them."""
    run, runs = pd.factorize(detections["run"])
    view, views = pd.factorize(detections["view"])
    index = {source: number for number, source in enumerate(sources)}
    numbers = np.array([[index.get((r, v), -1) for v in views] for r in runs], dtype=np.int64)
    return numbers.reshape(len(runs), len(views))[run, view]


def _groups(detections: pd.DataFrame) -> tuple[Int64[np.ndarray, " n"], pd.Index, pd.Index]:
    """Each row's number of its image and class, ordered by image, then class; the images; the classes."""
    image, images = pd.factorize(detections["image_id"], sort=True)
    label, labels = pd.factorize(detections["label"], sort=True)
    return image.astype(np.int64) * len(labels) + label, pd.Index(images), pd.Index(labels)


def _boxes(detections: pd.DataFrame) -> Float64[np.ndarray, "n 4"]:
    return detections[CORNERS].to_numpy(np.float64)


def _scores(detections: pd.DataFrame) -> Float64[np.ndarray, " n"]:
    return detections["score"].to_numpy(np.float64)


def _candidates(
    image_ids: pd.Series | pd.Index,
    boxes: Float64[np.ndarray, "n 4"],
    scores: Float64[np.ndarray, " n"],
    labels: pd.Series | pd.Index,
    agreement: Float64[np.ndarray, " n"],
    spread: Float64[np.ndarray, " n"],
) -> pd.DataFrame:
    """The table of candidates, sorted by image_id, then by falling score; ties keep their order."""
    columns = {"image_id": image_ids.array, "score": scores, "label": labels.array, "agreement": agreement}
    table = pd.DataFrame(columns).assign(spread=spread)
    table[CORNERS] = boxes
    image, _ = pd.factorize(table["image_id"], sort=True)
    return table[CANDIDATE_COLUMNS].iloc[np.lexsort((-scores, image))].reset_index(drop=True)
