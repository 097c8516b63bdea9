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
    """One image as the trainer gets it: bytes, so that little travels between processes."""

    image: UInt8[Tensor, "1 h w"]
    boxes: Float32[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    place: int
    lost: int
    counted: bool


class Batch(NamedTuple):
    """Several samples side by side; images may differ in size."""

    images: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]
    indices: list[int]
    lost: int
    counted: list[bool]


class DetectionDataset(Dataset[Sample]):
    """Images with boxes, resized to the network's size, augmented if asked.

    A key is an image's index, or (epoch, index): the augmentation is a pure function of (seed, epoch, index).
    An index past the end wraps round and is marked as not counted, to give every process equally many.
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
        lost = 0
        if self._augment is not None:
            seed = int(np.random.SeedSequence([self._seed, epoch, index]).generate_state(1)[0])
            augmented = self._augment(image, boxes, seed)
            lost = len(boxes) - len(augmented.kept)
            image, boxes, labels = augmented.image, augmented.boxes, labels[augmented.kept]
        return Sample(
            torch.from_numpy(np.array(image))[None],
            torch.from_numpy(boxes),
            torch.from_numpy(np.array(labels)),
            index,
            lost,
            position < len(self),
        )


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of one process's share, in an order that is a pure function of (seed, epoch).

    Every process gets equally many; where the images do not divide, indices wrap round.
    """

    def __init__(self, count: int, seed: int | None, rank: int = 0, processes: int = 1) -> None:
        self._count, self._seed, self._rank, self._processes = count, seed, rank, processes
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next (Lightning calls this)."""
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
    """Put samples side by side without stacking: detectors take lists."""
    images, boxes, labels, indices, lost, counted = zip(*samples, strict=True)
    return Batch(list(images), list(boxes), list(labels), list(indices), sum(lost), list(counted))


def loader(
    dataset: DetectionDataset, sampler: EpochSampler, batch_size: int, workers: int, pinned: bool
) -> DataLoader[Any]:
    """Batches of the sampler's samples.

    Args:
        dataset: Makes the samples.
        sampler: Their order in each epoch.
        batch_size: Samples per batch.
        workers: Processes that prepare samples and stay over the epochs; 0: this process prepares them.
        pinned: Whether batches are in memory that a GPU copies from while it computes.
    """
    if workers:
        # One thread each, set here: a forked worker that inherits a pool of OpenCV's waits for threads that it
        # does not have, for ever, be it in a resize or in this very call.
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
    """What was there before is never looked at by the collector.

    A look would write to every object's head, and every page of them would be copied into the worker.
    """
    gc.freeze()


def training_dataset(workspace: Path, image_size_px: int | None = None) -> DetectionDataset:
    """The augmented training images of the preset ``seed`` by themselves, every image of ``train/``.

    Needs ``data/train/`` and ``data/train.csv`` only; the pixel cache is built on first use. Raises KitError for a
    size outside of the knob's range.
    """
    config = Config()
    data = load_training(Path(workspace), config)
    if image_size_px is not None:
        config = config.replace({"model.image_size_px": image_size_px})  # refuses what no image can have
    return DetectionDataset(
        data, data.image_ids, config.model.image_size_px, config.training.seed, config.augmentation
    )


def _flat_boxes(
    annotations: pd.DataFrame, image_ids: Sequence[str], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4), labels 1..K (n) and each image's first row: arrays, which workers share without copying."""
    position = {image_id: i for i, image_id in enumerate(image_ids)}
    number = {label: i for i, label in enumerate(labels, start=1)}
    rows = annotations[annotations["image_id"].isin(position)]
    image = rows["image_id"].map(position).to_numpy(dtype=np.int64)
    order = image.argsort(kind="stable")
    starts = np.searchsorted(image[order], np.arange(len(image_ids) + 1))
    boxes = rows[list(CORNERS)].to_numpy(dtype=np.float32)[order]
    return boxes, rows["label"].map(number).to_numpy(dtype=np.int64)[order], starts
