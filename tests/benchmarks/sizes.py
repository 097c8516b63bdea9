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
    demo_epoch_images: int = 160  # its steps are fifty times shorter
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
    page_images: int = 880
    few: int = 1_000
    many: int = 20_000
    loader_epochs: int = 4
    large_few: int = 100
    large_many: int = 1_000
    stored_images: int = 710
    stored_tested: int = 170
    stored_boxes: int = 100
    demo_images: int = 400
    demo_tested: int = 170
    demo_boxes: int = 8
    stored_repeats: int = 1
    cold_images: int = 880
    whole_demo: bool = True
    device: str = "cuda"  # of the benchmark gpu; on the CPU its rows only show that they come
    gpu_px: int = 1024
    gpu_images: int = 164
    gpu_viewed: int = 170
    gpu_batches: tuple[int, ...] = (4, 16)
    gpu_steps: int = 20
    gpu_workers: tuple[int, ...] = (0, 2, 4, 8)
    dicoms: int = 100
    few_dicoms: int = 40
    dicom_px: int = 2000
    dicom_repeats: int = 1


FULL = Sizes()
TINY = Sizes(
    size_px=96, images=8, repeats=1, laptop_px=64, epoch_images=8, demo_epoch_images=8,
    epoch_repeats=1, evaluated_images=2,
    viewed_images=2, fused_images=3, fused_sources=2, fused_boxes=4, resampled_images=12, resampled_boxes=3,
    resamples=10, resamples_of_other=1, starts=1, page_images=40, few=100, many=200, loader_epochs=2,
    large_few=40, large_many=60,
    stored_images=32, stored_tested=8, stored_boxes=3, demo_images=32, demo_tested=8, demo_boxes=2,
    cold_images=16, whole_demo=False,
    gpu_px=64, gpu_images=12, gpu_viewed=2, gpu_batches=(2, 4), gpu_steps=1, gpu_workers=(0,),
    dicoms=40, few_dicoms=36, dicom_px=64, dicom_repeats=1,
)  # fmt: skip
