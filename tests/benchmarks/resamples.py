"""mAP with a bootstrap by patient, against torchmetrics on every resample (extrapolated from a few)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from kit.boxes.geometry import CORNERS
from kit.metrics import bootstrap
from kit.metrics.average_precision import match

from .measure import Row, timed
from .sizes import Sizes
from .tables import LABELS, detections, image_names, truth

Targets = dict[str, dict[str, Tensor]]


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    image_ids = image_names(sizes.resampled_images)
    patients = {image_id: image_id.partition("_")[0] for image_id in image_ids}
    true, found = truth(image_ids), detections(image_ids, 1, sizes.resampled_boxes)

    def ours() -> object:
        return bootstrap.map_intervals(match(true, found, image_ids), patients, seed=0, resamples=sizes.resamples)

    targets, outputs = _tensors(true, image_ids), _tensors(found, image_ids)
    rng = np.random.default_rng(0)

    def other() -> object:
        people = sorted(set(patients.values()))
        drawn = rng.multinomial(len(people), [1 / len(people)] * len(people))
        times = dict(zip(people, drawn, strict=True))
        metric = MeanAveragePrecision(iou_thresholds=[0.5], backend="faster_coco_eval")
        for image_id in image_ids:
            for _ in range(times[patients[image_id]]):
                metric.update([outputs[image_id]], [targets[image_id]])
        return metric.compute()

    ours()
    b = np.mean([timed(other) for _ in range(sizes.resamples_of_other)])
    a = np.median([timed(ours) for _ in range(sizes.repeats)])
    size = f"{sizes.resampled_images} images x {sizes.resampled_boxes} boxes"
    yield Row("resamples", f"mAP with {sizes.resamples} resamples of the patients, {size}",
              "torchmetrics on each resample", "s", float(a), float(b) * sizes.resamples, "times less",
              limit=20, ceiling=10, note=f"extrapolated from {sizes.resamples_of_other}")  # fmt: skip


def _tensors(table: pd.DataFrame, image_ids: list[str]) -> Targets:
    number = {label: index for index, label in enumerate(LABELS)}
    boxes = torch.tensor(table[CORNERS].to_numpy(np.float32))
    labels = torch.tensor(table["label"].map(number).to_numpy(np.int64))
    scores = torch.tensor(table["score"].to_numpy(np.float32)) if "score" in table else None
    rows_of = table.groupby("image_id").indices
    found: Targets = {}
    for image_id in image_ids:
        index = torch.from_numpy(rows_of.get(image_id, np.zeros(0, np.int64)))
        found[image_id] = {"boxes": boxes[index], "labels": labels[index]}
        if scores is not None:
            found[image_id]["scores"] = scores[index]
    return found
