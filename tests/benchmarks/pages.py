"""The page of images (`invoke view`) of a large run: its size, the memory and the time it takes to make.

The images are a few synthetic radiographs, each shifted and grainy in its own way; its detections are made up.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from kit.boxes.geometry import CORNERS
from kit.config import Config
from kit.data.competition import load_training
from kit.data.synthetic.radiographs import draw_anatomy, render
from kit.reports.thumbnails import THUMB_PX
from kit.runs.adoption import adopt
from kit.runs.folder import Run

from .measure import Row
from .sizes import Sizes
from .tables import LABELS, SIDE_PX, detections, image_names, truth

ROOT = Path(__file__).parents[2]
_MOST_MB, _MOST_MIB = 40, 1024 * 0.953674  # 10**9 bytes
_MB = 1e6
_RENDERED = 8
_BOXES = 100  # candidates of an image
_GRAIN = 4
_MEASURED = """
import resource, sys, time
from pathlib import Path
started = time.process_time()
from kit.evaluation.run_view import view_run
from kit.runs.folder import Run
pages = view_run(Run(Path(sys.argv[1]), "bench"))
seconds = time.process_time() - started
status = Path("/proc/self/status")  # the system's other number also counts the process that started this one
lines = status.read_text().splitlines() if status.exists() else []
kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
kib = kib or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
print(seconds, kib[0] / 1024, *(page.stat().st_size for page in pages))
"""
_RESIZED = """
import sys, time
from pathlib import Path
started = time.process_time()
from kit.config import Config
from kit.data.competition import load_training
from kit.data.images import resize_longest
pixels = load_training(Path(sys.argv[1]), Config()).pixels
for name in pixels.facts:
    resize_longest(pixels.read(name), int(sys.argv[2]))
print(time.process_time() - started)
"""


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    names = image_names(sizes.page_images)
    _write_images(folder, names, sizes.size_px)
    table = detections(names, 1, _BOXES, scatter="uniform")
    table[CORNERS] *= sizes.size_px / SIDE_PX
    found = folder / "detections.csv"
    table[["image_id", *CORNERS, "score", "label"]].to_csv(found, index=False)
    adopt(Run(folder, "bench"), found)
    _run(_MEASURED, folder)  # evaluates first
    seconds, peak_mib, *sizes_bytes = _run(_MEASURED, folder)
    (bare,) = _run(_RESIZED, folder, THUMB_PX)
    pixels = load_training(folder, Config()).pixels.file.stat().st_size
    what = f"page of {len(names)} images of {sizes.size_px} px with {_BOXES} candidates each"
    yield Row("pages", f"{what}: size", "its limit", "MB", max(sizes_bytes) / _MB, _MOST_MB, "times as much",
              limit=1, note="one file" if len(sizes_bytes) == 1 else f"{len(sizes_bytes)} files")  # fmt: skip
    yield Row("pages", "the same: peak memory of making it, mapped pixels included", "the images' pixels", "MiB",
              peak_mib, pixels / 2**20, "times as much", ceiling=_MOST_MIB)  # fmt: skip
    yield Row("pages", "the same: from the import to the page", "reading and resizing the images alone", "s of CPU",
              seconds, bare, "times as much")  # fmt: skip


def _write_images(folder: Path, names: list[str], side_px: int) -> None:
    """Different radiographs of noise like a film's, and a box on each."""
    images = folder / "data" / "train"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    films = [render(rng, [], side_px, draw_anatomy(rng)) for _ in range(_RENDERED)]
    grain = rng.integers(0, _GRAIN, (side_px, side_px), dtype=np.uint8)
    for number, name in enumerate(names):
        # Far enough for no two to be taken for copies of one picture.
        film = np.roll(films[number % _RENDERED], rng.integers(0, side_px, 2), axis=(0, 1))
        grainy = np.minimum(film, 255 - _GRAIN) + np.roll(grain, number, axis=0)
        Image.fromarray(grainy).save(images / name, compress_level=1)
    boxes = truth(names).assign(label=[LABELS[number % len(LABELS)] for number in range(len(names))])
    boxes[CORNERS] *= side_px / SIDE_PX
    boxes.to_csv(folder / "data" / "train.csv", index=False)


def _run(code: str, *words: object) -> list[float]:
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]
