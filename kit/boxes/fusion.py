"""Many views' and runs' detections to one list of candidates: suppression, or weighted boxes fusion.

Always within one image and one class: two findings of different classes may well lie on each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from kit.boxes.geometry import CORNERS, area, iou_pairs
from kit.config import FusionConfig

# ``agreement``: the share of the sources (views and runs) of which a box went into the candidate.
CANDIDATE_COLUMNS = ["image_id", *CORNERS, "score", "label", "agreement"]
Sources = Sequence[tuple[str, str]]  # (run, view) pairs that looked at every image of a table
# Groups fused at once: enough to amortise numpy's calls, few enough to stay in the processor's cache.
_GROUPS_AT_ONCE = 2048
# A cluster whose scores were all 0 would have no mean box.
_LEAST_SCORE = 1e-30


def fuse(
    detections: pd.DataFrame, config: FusionConfig, sources: Sources, weights: Sequence[float] | None = None
) -> pd.DataFrame:
    """Candidates from the detections of the named sources, by the method of ``config``.

    Every source counts as having looked, also where it saw nothing; rows of other sources are left out.
    ``weights`` (one per source, all 1 by default) act on ``wbf``; suppression knows no weights. The result is
    sorted by image_id, then by falling score; zero detections give zero candidates.
    """
    used = detections[_source_numbers(detections, sources) >= 0]
    if config.method == "suppress":
        return suppress(used, sources, config.iou)
    return weighted_boxes_fusion(used, sources, config.iou, weights)


def suppress(detections: pd.DataFrame, sources: Sources, iou: float) -> pd.DataFrame:
    """Greedy suppression per image and class over all rows (views, runs and folds pooled).

    By falling score (ties in the order of the table) a box stays unless its IoU with one that stays is above
    ``iou``, as in torchvision's ``nms``; its agreement counts the sources of the boxes that it stands for. A
    row of an unnamed source raises ValueError. The result is sorted by image_id, then by falling score.
    """
    source = _known_sources(detections, sources)
    boxes, scores = _boxes(detections), _scores(detections)
    groups, _, _ = _groups(detections)
    left = np.lexsort((-scores, groups))
    stands_for = np.arange(len(detections))
    while len(left):
        # One round for all groups: the best of each stays and removes what overlaps it.
        leader = np.diff(groups[left], prepend=-1) != 0
        rest, rival_of = left[~leader], left[leader][np.cumsum(leader) - 1][~leader]
        free = iou_pairs(boxes[rest], boxes[rival_of]) <= iou
        stands_for[rest[~free]] = rival_of[~free]
        left = rest[free]
    rows = np.flatnonzero(stands_for == np.arange(len(detections)))
    seen = np.zeros((len(rows), len(sources)), dtype=bool)
    seen[np.searchsorted(rows, stands_for), source] = True
    chosen = detections.iloc[rows]
    agreement = seen.sum(axis=1) / len(sources)
    return _candidates(chosen["image_id"], boxes[rows], scores[rows], chosen["label"], agreement)


def weighted_boxes_fusion(
    detections: pd.DataFrame,
    sources: Sources,
    iou: float,
    weights: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Average overlapping boxes of one image and class, weighted by their scores.

    A source is a (run, view) that looked at every image of the table, also where it found nothing; an image's
    rows come from one fold. ``weights`` has one positive number per source (all 1 by default). A box joins
    the cluster it overlaps most, if above ``iou``, else it opens one. A cluster's score is its mean times
    min(members, sources) / sum of weights: what few sources saw is trusted less. Boxes without area are left
    out. A row of an unnamed source raises ValueError. The result is sorted by image_id, then falling score,
    ties by label.

    Source: Solovyev et al., Weighted boxes fusion (2021). Equal to ``ensemble-boxes`` 1.0.9 with ``avg`` down
    to its order of ties and its float32 sums, and far faster: all images and classes advance together.
    """
    factors = np.ones(len(sources)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(factors) != len(sources) or not (factors > 0).all() or not np.isfinite(factors).all():
        raise ValueError(f"one positive weight per source ({len(sources)}), not {weights}")
    factors = factors / factors.max()  # only their ratios count, and large ones would overflow
    detections = detections[area(_boxes(detections)) > 0]
    source = _known_sources(detections, sources)
    boxes, scores = _boxes(detections), np.maximum(_scores(detections) * factors[source], _LEAST_SCORE)
    keys, images, labels = _groups(detections)
    parts = [_clusters(boxes, scores, source, ranked, iou) for ranked in _blocks(keys, source, scores)]
    if not parts:
        return _candidates(detections["image_id"], boxes, scores, detections["label"], scores)
    first, fused, means, members, seen = (np.concatenate(part) for part in zip(*parts, strict=True))
    trusted = means * np.minimum(members, len(sources)) / factors.sum()
    order = np.argsort(keys[first], kind="stable")
    image, label = np.divmod(keys[first][order], len(labels))
    return _candidates(images[image], fused[order], trusted[order], labels[label], seen[order] / len(sources))


def _clusters(
    boxes: Float64[np.ndarray, "n 4"],
    scores: Float64[np.ndarray, " n"],
    source: Int64[np.ndarray, " n"],
    ranked: Int64[np.ndarray, "g r"],
    iou: float,
) -> tuple[
    Int64[np.ndarray, " c"], Float64[np.ndarray, "c 4"], Float64[np.ndarray, " c"], Int64[np.ndarray, " c"],
    Int64[np.ndarray, " c"],
]:  # fmt: skip
    """Cluster the groups of a block, rank by rank; ``ranked`` holds row numbers, then -1 to the end.

    Gives for each cluster a row of its group, its box, its mean score, how many boxes it holds and of how
    many different sources they are.
    """
    shape = ranked.shape
    corners, means, totals = np.zeros((*shape, 4)), np.zeros(shape), np.zeros(shape)
    # The reference sums the weighted corners in float32; which cluster a box joins can hang on it.
    sums = np.zeros((*shape, 4), dtype=np.float32)
    members, opened = np.zeros(shape, dtype=np.int64), np.zeros(len(ranked), dtype=np.int64)
    seen = np.zeros((*shape, source.max() + 1), dtype=bool)
    for column in ranked.T:
        group = np.flatnonzero(column >= 0)
        box, value = boxes[column[group]], scores[column[group]]
        # One column more than any group has clusters: there the argmax of a first box finds overlap 0.
        overlap = _overlap(box, corners[group, : opened.max() + 1])
        best = overlap.argmax(axis=1)
        joins = overlap[np.arange(len(group)), best] > iou
        cell = (group, np.where(joins, best, opened[group]))
        opened[group] += ~joins
        members[cell] += 1
        seen[(*cell, source[column[group]])] = True
        totals[cell] += value
        sums[cell] = (sums[cell] + value[:, None] * box).astype(np.float32)
        mean_box = (sums[cell] / totals[cell][:, None]).astype(np.float32)
        corners[cell] = np.where(joins[:, None], mean_box, box)
        means[cell] = np.where(joins, (totals[cell] / members[cell]).astype(np.float32), value)
    group, cluster = np.nonzero(members)
    cell = (group, cluster)
    return ranked[group, 0], corners[cell], means[cell], members[cell], seen[cell].sum(axis=1)


def _overlap(box: Float64[np.ndarray, "g 4"], clusters: Float64[np.ndarray, "g c 4"]) -> np.ndarray:
    """IoU of each group's box with its clusters; 0 with a cluster that is not open yet (all zeros)."""
    one = box[:, None, :]
    low, high = np.maximum(one[..., :2], clusters[..., :2]), np.minimum(one[..., 2:], clusters[..., 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    own, other = one[..., 2:] - one[..., :2], clusters[..., 2:] - clusters[..., :2]
    return shared / (own[..., 0] * own[..., 1] + other[..., 0] * other[..., 1] - shared)


def _blocks(
    keys: Int64[np.ndarray, " n"], source: Int64[np.ndarray, " n"], scores: Float64[np.ndarray, " n"]
) -> Iterator[Int64[np.ndarray, "g r"]]:
    """Groups of like size as matrices of row numbers by falling score, filled up with -1."""
    rows = np.lexsort((source, keys))
    starts = np.flatnonzero(np.diff(keys[rows], prepend=-1))
    sizes = np.diff(np.append(starts, len(rows)))
    for start, size in zip(starts, sizes, strict=True):
        part = rows[start : start + size]
        # Not the stable order: ties must fall as in the reference, which sorts exactly so.
        rows[start : start + size] = part[scores[part].argsort()[::-1]]
    doublings = np.ceil(np.log2(sizes))
    for doubling in np.unique(doublings):
        alike = np.flatnonzero(doublings == doubling)
        for begin in range(0, len(alike), _GROUPS_AT_ONCE):
            block = alike[begin : begin + _GROUPS_AT_ONCE]
            rank = np.arange(sizes[block].max())
            inside = rank < sizes[block, None]
            yield np.where(inside, rows[np.where(inside, starts[block, None] + rank, 0)], -1)


def _known_sources(detections: pd.DataFrame, sources: Sources) -> Int64[np.ndarray, " n"]:
    found = _source_numbers(detections, sources)
    if (found < 0).any():
        stranger = detections[["run", "view"]].iloc[int(np.argmax(found < 0))]
        raise ValueError(f"detections of {tuple(stranger)}, which is not among the sources {list(sources)}")
    return found


def _source_numbers(detections: pd.DataFrame, sources: Sources) -> Int64[np.ndarray, " n"]:
    """Each row's place in ``sources``; -1 where it is of none of them."""
    run, runs = pd.factorize(detections["run"])
    view, views = pd.factorize(detections["view"])
    known = {source: number for number, source in enumerate(sources)}
    numbers = np.array([[known.get((r, v), -1) for v in views] for r in runs], dtype=np.int64)
    return numbers.reshape(len(runs), len(views))[run, view]


def _groups(detections: pd.DataFrame) -> tuple[Int64[np.ndarray, " n"], pd.Index, pd.Index]:
    """One number per image and class, ordered by image, then class; with the images and the classes."""
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
) -> pd.DataFrame:
    """The table of candidates, sorted by image_id, then by falling score; ties keep their order."""
    columns = {"image_id": image_ids.array, "score": scores, "label": labels.array, "agreement": agreement}
    table = pd.DataFrame(columns)
    table[CORNERS] = boxes
    image, _ = pd.factorize(table["image_id"], sort=True)
    return table[CANDIDATE_COLUMNS].iloc[np.lexsort((-scores, image))].reset_index(drop=True)
