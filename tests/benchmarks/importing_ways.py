"""`invoke import`'s work and the same by hand, in a process that has loaded nothing else: see importing.py."""

from __future__ import annotations

import json
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

PX = 1024  # longer side of the new images
IMAGES = "stage_2_train_images"


def by_kit(source: Path, goal: Path) -> None:
    """The whole import: headers, faults, images, tables, the record."""
    from kit.importing import ImportOptions, carry_out, plan_import

    carry_out(plan_import(ImportOptions("rsna", source, goal, size_px=PX)))


def by_hand(source: Path, goal: Path) -> None:
    """The pictures alone, as one writes it in a notebook."""
    goal.mkdir()
    paths = sorted((source / IMAGES).iterdir())
    with ProcessPoolExecutor() as pool:
        list(pool.map(_one_by_hand, paths, [goal / f"{path.stem}.png" for path in paths]))


def _one_by_hand(path: Path, goal: Path) -> None:
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    dataset = pydicom.dcmread(path)
    levels = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
    levels = (levels - levels.min()) / (levels.max() - levels.min())
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        levels = 1 - levels
    pixels = (levels * 255).astype(np.uint8)
    scale = PX / max(pixels.shape)
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    cv2.imwrite(str(goal), cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def main() -> None:
    """Run one way in this process and its children; print what it took."""
    way, source, goal = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    before, started = _cpu(), time.perf_counter()
    {"kit": by_kit, "hand": by_hand}[way](source, goal)
    print(
        json.dumps({"seconds": time.perf_counter() - started, "cpu": _cpu() - before, "mib": _largest_kib() / 1024})
    )


def _largest_kib() -> int:
    """The most that this process or one of its children held.

    Not RUSAGE_SELF: it counts what the process that started this one held.
    """
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def _cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in usage)


if __name__ == "__main__":
    main()
