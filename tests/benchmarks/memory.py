"""Resident memory of the trainer and of each worker over the epochs of a loader: it must not grow.

A worker's private pages count: those shared with the trainer until somebody writes to them (a reference
count is enough) become private one by one where samples are kept as Python objects.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kit.config import AugmentationConfig, Config
from kit.data.competition import load_training
from kit.data.dataset import DetectionDataset, EpochSampler, loader

from .growth import PX, write_images
from .measure import Row
from .sizes import Sizes

_LIMIT_MIB = 4  # one Python object per image, copied, would be ten and more
_WORKERS, _BATCH = 2, 50
_MIB = 2**20


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module; none where the system does not say what a process holds."""
    if not Path("/proc/self/smaps_rollup").exists():
        return
    write_images(folder, sizes.many)
    data = load_training(folder, Config())
    dataset = DetectionDataset(data, data.image_ids, PX, 0, AugmentationConfig())
    sampler = EpochSampler(len(dataset), 0)
    batches = loader(dataset, sampler, _BATCH, _WORKERS, pinned=False)
    first: dict[str, float] = {}
    for epoch in range(sizes.loader_epochs):
        sampler.set_epoch(epoch)
        for number, _ in enumerate(batches):
            # Early in the first epoch: everything is imported, and hardly a sample was touched.
            if not first and number >= len(dataset) // _BATCH // 10:
                first = _held()
    last = _held()
    for who, resident in last.items():
        yield Row("memory", f"{who} after {sizes.loader_epochs} epochs of {sizes.many:,} images",
                  "the same early in the first", "MiB", resident, first[who], "apart",
                  limit=_LIMIT_MIB)  # fmt: skip


def _held() -> dict[str, float]:
    """Resident memory of this process and private memory of each child, MiB."""
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    workers = [int(word) for word in task.read_text(encoding="utf-8").split()]
    ours = {"resident memory of the trainer": _pages(os.getpid(), "Rss:")}
    private = {
        f"private memory of worker {number}": _pages(worker, "Private_Dirty:", "Private_Clean:")
        for number, worker in enumerate(workers)
    }
    return ours | private


def _pages(process: int, *names: str) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    kib = [int(line.split()[1]) for line in lines if line.startswith(names)]
    return sum(kib) * 1024 / _MIB
