"""Samples for the trainer: images with boxes, resized and augmented, in an order that depends on the seed alone."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from kit.boxes.geometry import CORNERS
from kit.config import AugmentationConfig, Config
from kit.data.augmentation import Augmentation
from kit.data.competition import TrainingData, load_training
from kit.data.images import resize_longest


class Sample(NamedTuple):
    """An image as the trainer gets it: one byte per pixel, so that little travels between processes.

    ``boxes_lost`` counts by cause (too small, lost at the border) and by class the boxes that the augmentation left
    out; an image that does not count has none.
    """

    image: UInt8[Tensor, "1 h w"]
    boxes: Float32[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    image_index: int
    boxes_lost: Int64[np.ndarray, "2 k"]
    counted: bool


class Batch(NamedTuple):
    """Several samples; images may differ in size. ``boxes_lost`` is their sum."""

    images: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]
    indices: list[int]
    boxes_lost: Int64[np.ndarray, "2 k"]
    counted: list[bool]


class DetectionDataset(Dataset[Sample]):
    """Images with boxes, resized to the network's size, augmented if ``augmentation`` is given.

    A key is an image's index, or (epoch, index): the augmentation is a pure function of (seed, epoch, index).
    An index past the end wraps round and is marked as not counted, so that all processes get equally many.
    """

    def __init__(
        self,
        data: TrainingData,
        image_ids: Sequence[str],
        image_size_px: int,
        seed: int,
        augmentation: AugmentationConfig | None = None,
    ) -> None:
        self.image_ids = tuple(image_ids)
        self._pixels = data.pixels.rows(self.image_ids)
        self._size_px = image_size_px
        self._seed = seed
        self._augment = None if augmentation is None else Augmentation(augmentation)
        self._boxes, self._labels, self._starts = _flat_boxes(data.annotations, self.image_ids, data.labels)
        self.box_counts = np.bincount(self._labels - 1, minlength=len(data.labels)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, position = (0, key) if isinstance(key, int) else key
        index = position % len(self)
        original = self._pixels.read(index)
        image = resize_longest(original, self._size_px)
        rows = slice(self._starts[index], self._starts[index + 1])
        factors = np.array([image.shape[1] / original.shape[1], image.shape[0] / original.shape[0]] * 2)
        boxes = (self._boxes[rows] * factors).astype(np.float32)
        labels = self._labels[rows]
        boxes_lost = np.zeros((2, len(self.box_counts)), dtype=np.int64)
        if self._augment is not None:
            seed = int(np.random.SeedSequence([self._seed, epoch, index]).generate_state(1)[0])
            augmented = self._augment(image, boxes, seed)
            if len(augmented.kept) < len(boxes) and position < len(self):
                gone = np.setdiff1d(np.arange(len(boxes)), augmented.kept)
                at_border = (~np.isin(gone, augmented.too_small)).astype(np.int64)
                np.add.at(boxes_lost, (at_border, labels[gone] - 1), 1)
            image, boxes, labels = augmented.image, augmented.boxes, labels[augmented.kept]
        return Sample(
            torch.from_numpy(np.array(image))[None],
            torch.from_numpy(boxes),
            torch.from_numpy(np.array(labels)),
            index,
            boxes_lost,
            position < len(self),
        )


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of a process's share of the images, in an order that depends on (seed, epoch) alone.

    All processes get equally many: if the images do not divide, indices wrap round. Without a seed the order is
    that of the images.
    """

    def __init__(self, count: int, seed: int | None, rank: int = 0, processes: int = 1) -> None:
        self._count, self._seed, self._rank, self._processes = count, seed, rank, processes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next order (Lightning calls this)."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self._count / self._processes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self._count)
        if self._seed is not None:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(self._count)
        for position in range(self._rank, len(self) * self._processes, self._processes):
            wrapped = self._count if position >= self._count else 0
            yield self._epoch, int(order[position % self._count]) + wrapped


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as lists, not stacked: detectors take lists."""
    images, boxes, labels, indices, boxes_lost, counted = zip(*samples, strict=True)
    return Batch(list(images), list(boxes), list(labels), list(indices), np.sum(boxes_lost, axis=0), list(counted))


def loader(
    dataset: DetectionDataset, sampler: EpochSampler, batch_size: int, workers: int, pinned: bool
) -> DataLoader[Any]:
    """Batches of the sampler's samples.

    Args:
        dataset: The images with their boxes.
        sampler: The keys of this process's samples, in order.
        batch_size: Images per batch; the last one may have fewer.
        workers: Processes that prepare the batches and live over the epochs; 0 for this process.
        pinned: Puts batches into memory from which a GPU copies while it computes.
    """
    if workers:
        # One thread per worker, set before the fork: a worker that inherits OpenCV's pool waits for ever for
        # threads that it does not have, in a resize and in this very call.
        cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
    )


def _start_worker(number: int) -> None:
    """Keep the garbage collector away from the objects inherited from the parent process.

    It would write to the header of every object, and the worker would copy every memory page of them.
    """
    gc.freeze()


def training_dataset(workspace: Path, image_size_px: int | None = None) -> DetectionDataset:
    """Every image of ``train/``, augmented as by the preset ``seed``, for a training loop of your own.

    Needs ``data/train/`` and ``data/train.csv`` only; the pixel cache is built on first use. Raises KitError for a
    size outside the range of ``model.image_size_px``.
    """
    config = Config()
    data = load_training(Path(workspace), config)
    if image_size_px is not None:
        config = config.replace({"model.image_size_px": image_size_px})  # checks the range
    return DetectionDataset(
        data, data.image_ids, config.model.image_size_px, config.training.seed, config.augmentation
    )


def _flat_boxes(
    annotations: pd.DataFrame, image_ids: Sequence[str], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4), labels 1..K (n), first row of each image: arrays, which workers share without copying."""
    position = {image_id: i for i, image_id in enumerate(image_ids)}
    number = {label: i for i, label in enumerate(labels, start=1)}
    rows = annotations[annotations["image_id"].isin(position)]
    image = rows["image_id"].map(position).to_numpy(dtype=np.int64)
    order = image.argsort(kind="stable")
    starts = np.searchsorted(image[order], np.arange(len(image_ids) + 1))
    boxes = rows[list(CORNERS)].to_numpy(dtype=np.float32)[order]
    return boxes, rows["label"].map(number).to_numpy(dtype=np.int64)[order], starts
