"""Several readers' boxes of one finding: boxes of one class that overlap in one image, and their mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int64

from kit.boxes.geometry import CORNERS, iou_pairs
from kit.data.duplicates import joined_groups

SAME_FINDING_IOU = 0.5  # the overlap from which the score counts two boxes as one finding


def finding_numbers(annotations: pd.DataFrame) -> Int64[np.ndarray, " n"]:
    """The number of each box's finding: boxes of one image and class with an IoU above .5 share it, in chains too.

    ``annotations`` has image_id, corners and label; zero rows give zero numbers.
    """
    boxes = annotations[CORNERS].to_numpy(np.float64)
    alone = np.arange(len(boxes), dtype=np.int64)
    places = pd.Series(alone).groupby([annotations["image_id"].to_numpy(), annotations["label"].to_numpy()])
    pairs = [
        rows.to_numpy()[np.stack(np.triu_indices(len(rows), 1), axis=1)] for _, rows in places if len(rows) > 1
    ]
    links = np.concatenate([np.zeros((0, 2), dtype=np.int64), *pairs])
    overlap = iou_pairs(boxes[links[:, 0]], boxes[links[:, 1]]) > SAME_FINDING_IOU
    return joined_groups(alone, links[overlap])


def fuse_repeated(annotations: pd.DataFrame) -> pd.DataFrame:
    """One box per finding (see ``finding_numbers``): the mean of its boxes' corners, at the place of the first."""
    numbers = finding_numbers(annotations)
    means = annotations.groupby(numbers)[CORNERS].transform("mean")
    first = ~pd.Series(numbers).duplicated().to_numpy()
    return annotations.assign(**means)[first].reset_index(drop=True)
