"""The notebook's way, re-created: what it does per item, per threshold and per view, with its own libraries.

Only its cost is of interest here; its errors (labels, suppression across classes) are left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import nms
from torchvision.transforms.functional import resize

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations as A

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
NMS_IOU = 0.3
CORNERS = ["x_min", "y_min", "x_max", "y_max"]


class SeedDataset(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Decodes the file as RGB each time, filters the table for its boxes, hands out float32 in three channels."""

    def __init__(self, table: pd.DataFrame, folder: Path, image_ids: Sequence[str]) -> None:
        self.table, self.folder, self.image_ids = table, folder, list(image_ids)
        self.numbers = {label: number for number, label in enumerate(sorted(table["label"].unique()))}
        self.augment = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                # ShiftScaleRotate(shift .0625, scale .1, rotate 15), which Albumentations 2 makes an Affine.
                A.Affine(
                    scale=(0.9, 1.1),
                    translate_percent={"x": (-0.0625, 0.0625), "y": (-0.0625, 0.0625)},
                    rotate=(-15, 15),
                    p=0.5,
                ),
                A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
                A.CoarseDropout(p=0.2),  # its arguments are unknown to Albumentations 2, and ignored
            ],
            bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"], min_visibility=0.3),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image_id = self.image_ids[index]
        image = np.array(Image.open(self.folder / image_id).convert("RGB"))
        rows = self.table[self.table["image_id"] == image_id]
        labels = [self.numbers[label] for label in rows["label"]]
        changed = self.augment(image=image, bboxes=rows[CORNERS].to_numpy(), labels=labels)
        tensor = torch.from_numpy(changed["image"].transpose(2, 0, 1)).float() / 255
        target = {
            "boxes": torch.as_tensor(np.array(changed["bboxes"]), dtype=torch.float32).reshape(-1, 4),
            "labels": torch.as_tensor(np.array(changed["labels"]), dtype=torch.int64),
        }
        return tensor, target


@torch.no_grad()
def score(
    detector: nn.Module, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], threshold: float
) -> dict[str, Any]:
    """One validation: the network over all images, what is below the threshold dropped, torchmetrics' mAP."""
    metric = MeanAveragePrecision(iou_thresholds=[0.5], class_metrics=True, backend="faster_coco_eval")
    for image, target in zip(images, targets, strict=True):
        output = detector([image])[0]
        kept = output["scores"] >= threshold
        metric.update([{name: values[kept] for name, values in output.items()}], [target])
    return metric.compute()


def sweep(
    detector: nn.Module, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]
) -> list[dict[str, Any]]:
    """The validation's score and then the threshold's, each from a run of the network of its own."""
    return [score(detector, images, targets, threshold) for threshold in (0.0, *THRESHOLDS)]


@torch.no_grad()
def five_views(detector: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Test-time views of one image (3, h, w), one forward pass each, fused by suppression."""
    height, width = image.shape[1:]
    smaller = resize(resize(image, [round(0.9 * height), round(0.9 * width)]), [height, width])
    larger = resize(resize(image, [round(1.1 * height), round(1.1 * width)]), [height, width])
    views = [image, image.flip(2), (image * 1.2).clamp(0, 1), smaller, larger]
    outputs = [detector([view])[0] for view in views]
    outputs[1]["boxes"][:, [0, 2]] = width - outputs[1]["boxes"][:, [2, 0]]
    pooled = {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
    kept = nms(pooled["boxes"], pooled["scores"], NMS_IOU)
    return {name: values[kept] for name, values in pooled.items()}
