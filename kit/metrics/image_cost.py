"""What each image costs the score: the mAP that answering this image alone without an error would bring.

An image changes the curve only where its own detections lie, so all images of a class are repaired at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from kit.metrics.average_precision import RECALL_POINTS, ClassMatches, Matches, average_precision

_IMAGES_AT_ONCE = 256  # a matrix of images x hits is held at a time


def image_costs(matches: Matches) -> Mapping[str, float]:
    """By image, the mAP at IoU .5 (COCO's 101 points) gained if the image were answered without an error.

    The repaired image has a hit for each of its true boxes, ranked before all other detections, and nothing else.
    Each image is repaired alone, so the costs do not add up to the missing mAP. None is below 0; all are 0 without
    true boxes. Equal to scoring anew with the image's rows replaced by its true boxes.
    """
    with_truth = [matched for matched in matches.classes.values() if matched.positives.any()]
    total = np.zeros(len(matches.image_ids))
    for matched in with_truth:
        before = average_precision(matched.hits, int(matched.positives.sum()))
        total += _repaired(matched) - before
    # An image without an error of a class keeps its AP, up to the rounding of its sum.
    costs = np.maximum(total, 0) / max(1, len(with_truth))
    return dict(zip(matches.image_ids, costs.tolist(), strict=True))


def _repaired(matched: ClassMatches) -> Float64[np.ndarray, " images"]:
    """The class's AP with each image repaired alone."""
    images = len(matched.positives)
    blocks = [
        _repaired_block(matched, np.arange(start, min(start + _IMAGES_AT_ONCE, images)))
        for start in range(0, images, _IMAGES_AT_ONCE)
    ]
    return np.concatenate(blocks)


def _repaired_block(matched: ClassMatches, images: np.ndarray) -> Float64[np.ndarray, " block"]:
    hits, positives = int(matched.hits.sum()), int(matched.positives.sum())
    inside = (matched.images >= images[0]) & (matched.images <= images[-1])
    row = matched.images - images[0]

    def up_to_hits(chosen: np.ndarray) -> np.ndarray:
        """By image and hit, the image's chosen detections up to and with the hit."""
        next_hit = (np.cumsum(matched.hits) - matched.hits)[chosen]
        cells = row[chosen][next_hit < hits] * hits + next_hit[next_hit < hits]
        return np.cumsum(np.bincount(cells, minlength=len(images) * hits).reshape(len(images), hits), axis=1)

    own = matched.positives[images][:, None]  # the repaired image's hits, before all others
    right = own + np.arange(1, hits + 1) - up_to_hits(inside & matched.hits)
    detections = own + 1 + np.flatnonzero(matched.hits) - up_to_hits(inside)
    # Where the image's own hit was, nothing is left: at most a precision that the hit before it exceeds.
    precision = np.divide(right, detections, out=np.zeros(right.shape), where=detections > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    points = RECALL_POINTS["coco101"]
    first = np.where(own > 0, np.searchsorted(points, own / positives, side="right"), 0)
    reached = np.searchsorted(points, np.where(right > 0, right / positives, -1), side="right")
    newly = np.diff(np.concatenate([first, reached], axis=1), axis=1)
    area: np.ndarray = first[:, 0] + (envelope * newly).sum(axis=1)
    return area / len(points)
