"""One training epoch of the kit against the bare loop: forward, backward, step on tensors already in memory.

The kit's time runs from the first training batch in the network to the first validation batch in it. The
in-loop score and the two checkpoints, which come once an epoch of any length, are named in the note.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from kit.config import Config
from kit.data.competition import TrainingData, load_training
from kit.data.dataset import DetectionDataset, EpochSampler, collate
from kit.data.synthetic.generator import write_competition
from kit.detectors.memory import keeping_freed_memory
from kit.detectors.networks import network_input
from kit.runs.folder import Run, Split
from kit.training.fit import fit
from kit.training.optimizer import make_optimizer, set_rate

from .detectors import config_of, detector_of
from .measure import Row, timed
from .sizes import Sizes

_HELD_OUT = 4  # images: one batch of validation
_LIMIT, _KEPT_LIMIT = {"laptop": 1.05, "demo": None}, {"laptop": None, "demo": 1.1}

# A batch as the bare loop takes it: images float in three channels, and their targets.
Prepared = tuple[list[Tensor], list[dict[str, Tensor]]]


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    logging.getLogger("kit").setLevel(logging.WARNING)
    for name, images in (("laptop", sizes.epoch_images), ("demo", sizes.demo_epoch_images)):
        place = folder / name
        config = config_of(name, sizes).replace({"training.max_epochs": 1, "trainer.accelerator": "cpu"})
        size_px = sizes.size_px if name == "laptop" else 2 * config.model.image_size_px
        write_competition(place, 3, train_images=images + _HELD_OUT, test_images=8, size_px=size_px)
        data = load_training(place, config)
        split = Split(data.labels, data.image_ids, (data.image_ids[:_HELD_OUT],), data.table_sha256)
        batches = in_memory(config, split, data)
        classes = len(data.labels)
        _bare(config, batches[:2], classes)
        times = [
            (
                *_ours(Run(place, f"run{number}"), config, split, data),
                _bare(config, batches, classes),
                bare_with_kept_memory(config, batches, classes),
            )
            for number in range(sizes.epoch_repeats)
        ]
        a, after, b, kept = (statistics.median(each) for each in zip(*times, strict=True))
        yield Row("epoch", f"one training epoch, {name}, {len(batches)} batches of {config.training.batch_size}",
                  "bare forward, backward, step in memory", "s", a, b, "times as much", limit=_LIMIT[name],
                  note=f"from the first batch in the network on; then {after:.1f} s for the score "
                       "and two checkpoints")  # fmt: skip
        yield Row("epoch", f"one training epoch, {name}", "the same, freed memory kept there too", "s", a, kept,
                  "times as much", limit=_KEPT_LIMIT[name])  # fmt: skip


def _ours(run: Run, config: Config, split: Split, data: TrainingData) -> tuple[float, float]:
    """Seconds of the training, and of what comes after the validation's last forward pass."""
    detector = detector_of(config, len(data.labels))
    clock = _Clock()
    before = detector.register_forward_pre_hook(clock.entered)
    after = detector.register_forward_hook(clock.left)
    run.folder.mkdir(parents=True)
    fit(run, config, split, data, detector)
    ended = time.perf_counter()
    before.remove()
    after.remove()
    return clock.trained, ended - clock.times["validation", "left"]


class _Clock:
    """When the network was first entered and last left, in training and in validation."""

    def __init__(self) -> None:
        self.times: dict[tuple[str, str], float] = {}

    def entered(self, network: nn.Module, inputs: object) -> None:
        self.times.setdefault((_mode(network), "entered"), time.perf_counter())

    def left(self, network: nn.Module, inputs: object, outputs: object) -> None:
        self.times[_mode(network), "left"] = time.perf_counter()

    @property
    def trained(self) -> float:
        return self.times["validation", "entered"] - self.times["train", "entered"]


def _mode(network: nn.Module) -> str:
    return "train" if network.training else "validation"


def _bare(config: Config, batches: list[Prepared], classes: int) -> float:
    detector = detector_of(config, classes).train()
    optimizer = make_optimizer(detector, config.training)  # the recipe's: AdamW takes longer than SGD
    set_rate(optimizer, config.training.warmup_start_rate)

    def epoch() -> None:
        for images, targets in batches:
            loss = torch.stack(list(detector(images, targets).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return timed(epoch)


def bare_with_kept_memory(config: Config, batches: list[Prepared], classes: int) -> float:
    """Seconds of the bare loop, freed memory kept as kit keeps it."""
    with keeping_freed_memory("cpu"):
        return _bare(config, batches, classes)


def in_memory(config: Config, split: Split, data: TrainingData) -> list[Prepared]:
    """The very batches that the kit's first epoch has, ready for the network."""
    seed, size = config.training.seed, config.training.batch_size
    dataset = DetectionDataset(data, split.training(0), config.model.image_size_px, seed, config.augmentation)
    samples = [dataset[key] for key in EpochSampler(len(dataset), seed)]
    batches = [collate(samples[start : start + size]) for start in range(0, len(samples), size)]
    return [
        (
            [image.contiguous() for image in network_input(batch.images)],
            [{"boxes": boxes, "labels": labels} for boxes, labels in zip(batch.boxes, batch.labels, strict=True)],
        )
        for batch in batches
    ]
