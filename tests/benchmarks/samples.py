"""Training samples at 1024 px: what one costs, what travels to the trainer, what the first epoch costs.

CPU seconds of the process, since the kit decodes on every core and a notebook's worker on one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import cv2
import pandas as pd
import torch

from kit.data.dataset import Sample, collate, training_dataset
from kit.data.synthetic.generator import write_competition
from kit.detectors.networks import network_input

from .measure import CPU, Row, in_turn
from .seed_way import SeedDataset
from .sizes import Sizes

SEED_WAY = "the seed's way"


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    write_competition(folder, 1, train_images=sizes.images, test_images=8, size_px=sizes.size_px)
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield from _compared(sizes, folder)
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def _compared(sizes: Sizes, folder: Path) -> Iterator[Row]:
    ours = training_dataset(folder, sizes.size_px)
    table = pd.read_csv(folder / "data" / "train.csv")
    other = SeedDataset(table, folder / "data" / "train", ours.image_ids)
    epochs = count()

    def epoch() -> list[Sample]:
        number = next(epochs)
        return [ours[number, index] for index in range(len(ours))]

    def seed_epoch() -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        return [other[index] for index in range(len(other))]

    def on_the_device() -> list[list[torch.Tensor]]:
        return [[image.contiguous() for image in network_input([sample.image])] for sample in epoch()]

    def from_nothing() -> None:
        shutil.rmtree(folder / ".cache")
        dataset = training_dataset(folder, sizes.size_px)
        for index in range(len(dataset)):
            dataset[0, index]

    travels = sum(_bytes(collate([sample])) for sample in epoch()) / len(ours)
    seed_travels = sum(_bytes(sample) for sample in seed_epoch()) / len(other)
    to_ms = 1e3 / len(ours)
    a, b = in_turn(epoch, seed_epoch, sizes.repeats, CPU)
    rate = f"{len(ours) / a:.0f} a second and core"
    yield Row("samples", f"a training sample at {sizes.size_px} px, warm cache", SEED_WAY, "ms of one core",
              a * to_ms, b * to_ms, "times less", limit=6, note=rate)  # fmt: skip
    a, b = in_turn(on_the_device, seed_epoch, sizes.repeats, CPU)
    yield Row("samples", "the same, made float in three channels as well", SEED_WAY, "ms of one core",
              a * to_ms, b * to_ms, "times less", note="the kit does this on the device")  # fmt: skip
    yield Row("samples", "bytes of a sample from worker to trainer", SEED_WAY, "bytes",
              travels, seed_travels, "times as much", limit=0.1)  # fmt: skip
    a, b = in_turn(from_nothing, seed_epoch, sizes.repeats, CPU)
    yield Row("samples", "first epoch, the cache being built in it", SEED_WAY, "ms of one core",
              a * to_ms, b * to_ms, "times as much", limit=1)  # fmt: skip


def _bytes(value: object) -> int:
    """Bytes of all tensors in a sample or a batch."""
    if isinstance(value, torch.Tensor):
        return value.nelement() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, (list, tuple)) else 0
