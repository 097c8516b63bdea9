"""Weights and images in, raw detections out: one table of run, fold, view, image, box, score, label.

The table grows in parts on disk, a chunk of images each, so that a killed inference goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64
from torch import nn

from kit.boxes.geometry import CORNERS, Boxes, clip
from kit.config import InferenceConfig
from kit.data.images import Grey
from kit.data.pixel_cache import PixelCache
from kit.detectors.memory import keeping_freed_memory
from kit.detectors.networks import network_input
from kit.detectors.tta import View, views
from kit.schemas.detections import DETECTION_COLUMNS, detection_table


@dataclass(frozen=True)
class Source:
    """Whose detections these are: the run, the fold that its weights did not see, and how they are made."""

    run: str
    fold: int
    weights_sha256: str
    labels: tuple[str, ...]
    image_size_px: int
    inference: InferenceConfig


@torch.inference_mode()
def detect(source: Source, detector: nn.Module, pixels: PixelCache, image_ids: Sequence[str]) -> pd.DataFrame:
    """Raw detections of every view, boxes in the original's pixels, clipped to the image, by image and view.

    View after view of a few images of one shape: the cache's pixels are mapped, and of each image one view at
    a time is in memory.
    """
    detector.eval()
    device = next(detector.parameters()).device
    found: dict[tuple[int, int], _Found] = {}
    batches = _same_shape([_size(pixels, image_id) for image_id in image_ids], source.inference.batch_size)
    with keeping_freed_memory(device.type), torch.autocast(device.type, enabled=device.type == "cuda"):
        for batch in batches:
            images = [pixels.read(image_ids[place]) for place in batch]
            for number, view in enumerate(views(source.inference)):
                outputs = detector(_shown(view, images, source.image_size_px, device))
                for place, output in zip(batch, outputs, strict=True):
                    size = _size(pixels, image_ids[place])
                    found[place, number] = _in_original(view, size, source.image_size_px, output)
    return _detections(source, image_ids, found)


def _size(pixels: PixelCache, image_id: str) -> tuple[int, int]:
    """Width and height, pixels."""
    facts = pixels.facts[image_id]
    return facts.width_px, facts.height_px


def _same_shape(sizes: Sequence[tuple[int, int]], most: int) -> list[list[int]]:
    """Batches of indices of images with one size each: padding would cost time and change scores."""
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    batches: list[list[int]] = []
    for place in order:
        if batches and len(batches[-1]) < most and sizes[batches[-1][0]] == sizes[place]:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _shown(view: View, images: Sequence[Grey], size_px: int, device: torch.device) -> list[torch.Tensor]:
    """What the network gets of a view; its bytes are gone when this returns."""
    return network_input([torch.tensor(view.apply(image, size_px))[None].to(device) for image in images])


class _Found(NamedTuple):
    """One image's detections in one view, boxes in the original's pixels."""

    boxes: Boxes
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]


def _in_original(view: View, size: tuple[int, int], size_px: int, output: Mapping[str, torch.Tensor]) -> _Found:
    numbers = output["labels"].cpu().numpy()
    seen: Boxes = output["boxes"].float().cpu().numpy().reshape(-1, 4)
    boxes = clip(view.invert(seen, *size, size_px), *size).astype(np.float32)
    real = (numbers > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # 0 is background
    return _Found(boxes[real], output["scores"].float().cpu().numpy()[real], numbers[real])


def _detections(source: Source, image_ids: Sequence[str], found: Mapping[tuple[int, int], _Found]) -> pd.DataFrame:
    """The table, by image and view; made at once, since a small table per view costs as much as a large one."""
    if not found:
        return detection_table([])
    keys = sorted(found)
    counts = [len(found[key].scores) for key in keys]
    names = np.array([view.name for view in views(source.inference)], dtype=object)
    place, number = np.repeat(np.array(keys, dtype=np.int64), counts, axis=0).T
    labels = np.array(["", *source.labels], dtype=object)
    table = pd.DataFrame(np.concatenate([found[key].boxes for key in keys]), columns=CORNERS).assign(
        run=source.run,
        fold=source.fold,
        view=names[number],
        image_id=np.array(image_ids, dtype=object)[place],
        score=np.concatenate([found[key].scores for key in keys]),
        label=labels[np.concatenate([found[key].labels for key in keys])],
    )
    return detection_table([table[list(DETECTION_COLUMNS)]])
