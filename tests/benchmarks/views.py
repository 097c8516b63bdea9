"""Five views over the test images against the bare forward passes of the same sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from kit.config import Config
from kit.data.pixel_cache import PixelCache, open_cache
from kit.data.synthetic.generator import LABELS, write_competition
from kit.detectors.inference import Source, detect
from kit.detectors.memory import keeping_freed_memory
from kit.detectors.networks import network_input
from kit.detectors.tta import views

from . import seed_way
from .detectors import config_of, detector_of
from .measure import Row, in_turn
from .sizes import Sizes


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    write_competition(folder, 2, train_images=8, test_images=sizes.viewed_images, size_px=sizes.size_px)
    config = config_of("laptop", sizes)
    pixels = open_cache(folder / "data" / "test", folder / ".cache", config.data.cache_max_gib)
    image_ids = sorted(pixels.facts)
    detector = detector_of(config, len(LABELS)).eval()
    source = Source("bench", 0, "", LABELS, config.model.image_size_px, config.inference)
    prepared = _prepared(config, pixels, image_ids)
    singles = [batch[index] for batch in prepared[0] for index in range(len(batch))]

    def ours() -> object:
        return detect(source, detector, pixels, image_ids)

    @torch.inference_mode()
    def bare() -> object:
        return [detector(batch) for view in prepared for batch in view]

    def seed() -> object:
        return [seed_way.five_views(detector, image) for image in singles]

    bare()
    to_ms = 1e3 / len(image_ids)
    a, b = in_turn(ours, bare, sizes.repeats)
    yield Row("views", f"five views of a test image, laptop ({config.model.image_size_px} px)",
              "the same five forward passes, bare", "ms", a * to_ms, b * to_ms, "times as much",
              limit=1.1)  # fmt: skip

    def kept() -> object:
        with keeping_freed_memory("cpu"):
            return bare()

    a, b = in_turn(ours, kept, sizes.repeats)
    yield Row("views", "five views of a test image, laptop", "the same, freed memory kept there too", "ms",
              a * to_ms, b * to_ms, "times as much")  # fmt: skip
    a, b = in_turn(ours, seed, max(1, sizes.repeats // 2))
    yield Row("views", "five views of a test image, laptop", "the seed's way, image by image", "ms",
              a * to_ms, b * to_ms, "times less")  # fmt: skip


def _prepared(config: Config, pixels: PixelCache, image_ids: list[str]) -> list[list[list[Tensor]]]:
    """Per view, the batches as the network takes them: float, three channels, in memory."""
    size = config.inference.batch_size
    chunks = [image_ids[start : start + size] for start in range(0, len(image_ids), size)]
    return [
        [
            [
                shown.contiguous()
                for shown in network_input(
                    [
                        torch.tensor(view.apply(pixels.read(name), config.model.image_size_px))[None]
                        for name in chunk
                    ]
                )
            ]
            for chunk in chunks
        ]
        for view in views(config.inference)
    ]
