"""Inference: a network's raw detections of images in every view, as a table of run, fold, view, image, box, score,
label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64
from torch import nn

from kit.boxes.geometry import CORNERS, Boxes, clip
from kit.core.threads import made_ahead
from kit.data.pixel_cache import PixelCache
from kit.detectors.memory import keeping_freed_memory
from kit.detectors.networks import network_input
from kit.detectors.source import Source
from kit.detectors.tta import View, views
from kit.schemas.detections import DETECTION_COLUMNS, detection_table


@torch.inference_mode()
def detect(source: Source, detector: nn.Module, pixels: PixelCache, image_ids: Sequence[str]) -> pd.DataFrame:
    """The raw detections of every view, by image and view; boxes in the original's pixels, clipped to the image.

    A batch holds images of one size and goes through one view after the other: the cache is memory-mapped, and
    only one view of a batch is in memory at a time; for a GPU the next one is made meanwhile.
    """
    detector.eval()
    device = next(detector.parameters()).device
    detections: dict[tuple[int, int], _Detections] = {}  # by index of the image and number of the view
    shown = _shown(source, pixels, image_ids)
    if device.type != "cpu":  # on the CPU the network takes all cores
        shown = made_ahead(shown)
    with keeping_freed_memory(device.type), torch.autocast(device.type, enabled=device.type == "cuda"):
        for batch, number, view, images in shown:
            outputs = detector(network_input([image.to(device) for image in images]))
            del images  # before the next view is made
            for index, output in zip(batch, outputs, strict=True):
                size = _size(pixels, image_ids[index])
                detections[index, number] = _in_original(view, size, source.image_size_px, output)
    return _table(source, image_ids, detections)


def _shown(
    source: Source, pixels: PixelCache, image_ids: Sequence[str]
) -> Iterator[tuple[list[int], int, View, list[torch.Tensor]]]:
    """Batches of images in every view: their indices, the number of the view, the view, the images in it."""
    size_px = source.image_size_px
    for batch in _same_shape([_size(pixels, image_id) for image_id in image_ids], source.inference.batch_size):
        images = [pixels.read(image_ids[index]) for index in batch]
        for number, view in enumerate(views(source.inference)):
            yield batch, number, view, [torch.tensor(view.apply(image, size_px))[None] for image in images]


def _size(pixels: PixelCache, image_id: str) -> tuple[int, int]:
    """Width and height, pixels."""
    facts = pixels.facts[image_id]
    return facts.width_px, facts.height_px


def _same_shape(sizes: Sequence[tuple[int, int]], most: int) -> list[list[int]]:
    """Indices in batches of at most ``most`` images of one size: padding would cost time and change scores."""
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    batches: list[list[int]] = []
    for index in order:
        if batches and len(batches[-1]) < most and sizes[batches[-1][0]] == sizes[index]:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class _Detections(NamedTuple):
    """An image's detections in one view, boxes in the original's pixels."""

    boxes: Boxes
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]


def _in_original(
    view: View, size: tuple[int, int], size_px: int, output: Mapping[str, torch.Tensor]
) -> _Detections:
    labels = output["labels"].cpu().numpy()
    in_view: Boxes = output["boxes"].float().cpu().numpy().reshape(-1, 4)
    boxes = clip(view.invert(in_view, *size, size_px), *size).astype(np.float32)
    kept = (labels > 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # 0 is background
    return _Detections(boxes[kept], output["scores"].float().cpu().numpy()[kept], labels[kept])


def _table(
    source: Source, image_ids: Sequence[str], detections: Mapping[tuple[int, int], _Detections]
) -> pd.DataFrame:
    """The table, by image and view, built at once: a small table per view costs as much as a large one."""
    if not detections:
        return detection_table([])
    keys = sorted(detections)
    counts = [len(detections[key].scores) for key in keys]
    names = np.array([view.name for view in views(source.inference)], dtype=object)
    index, number = np.repeat(np.array(keys, dtype=np.int64), counts, axis=0).T
    labels = np.array(["", *source.labels], dtype=object)
    table = pd.DataFrame(np.concatenate([detections[key].boxes for key in keys]), columns=CORNERS).assign(
        run=source.run,
        fold=source.fold,
        view=names[number],
        image_id=np.array(image_ids, dtype=object)[index],
        score=np.concatenate([detections[key].scores for key in keys]),
        label=labels[np.concatenate([detections[key].labels for key in keys])],
    )
    return detection_table([table[list(DETECTION_COLUMNS)]])
