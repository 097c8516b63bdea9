"""How much is measured: all of it, or just enough to see that every row comes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Counts of images, boxes and repetitions; the defaults are those of the table in docs/speed.md."""

    size_px: int = 1024
    images: int = 24
    repeats: int = 5
    laptop_px: int = 384
    epoch_images: int = 40
    epoch_repeats: int = 3
    evaluated_images: int = 24
    viewed_images: int = 12
    fused_images: int = 170
    fused_sources: int = 10
    fused_boxes: int = 30
    resampled_images: int = 710
    resampled_boxes: int = 30
    resamples: int = 1000
    resamples_of_other: int = 2
    starts: int = 5
    few: int = 1_000
    many: int = 20_000
    loader_epochs: int = 4


FULL = Sizes()
TINY = Sizes(
    size_px=96, images=8, repeats=1, laptop_px=64, epoch_images=8, epoch_repeats=1, evaluated_images=2,
    viewed_images=2, fused_images=3, fused_sources=2, fused_boxes=4, resampled_images=12, resampled_boxes=3,
    resamples=10, resamples_of_other=1, starts=1, few=100, many=200, loader_epochs=2,
)  # fmt: skip
