"""`invoke import` of JPEG 2000 DICOM files against the same steps written by hand, each in a Python of its own.

By hand: pydicom decodes, its tables make levels, OpenCV resizes and writes, a process per core. The memory is that
of the largest process, after many files and after fewer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .importing_ways import IMAGES
from .measure import Row
from .sizes import Sizes

ROOT = Path(__file__).parents[2]
_PATTERNS = 4  # different images; the files repeat them
_LIMIT, _LIMIT_MIB = 1.3, 16
_TABLE = "stage_2_train_labels.csv"


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    write_set(folder / "few", sizes.few_dicoms, sizes.dicom_px)
    write_set(folder / "many", sizes.dicoms, sizes.dicom_px)
    few = _measured("kit", folder / "few", folder / "few-work")
    ours = [_measured("kit", folder / "many", folder / f"work-{number}") for number in range(sizes.dicom_repeats)]
    other = [_measured("hand", folder / "many", folder / f"hand-{number}") for number in range(sizes.dicom_repeats)]
    what = f"import of {sizes.dicoms} DICOM files of {sizes.dicom_px} px (JPEG 2000)"
    for unit, key in (("s", "seconds"), ("s of all cores", "cpu")):
        a, b = (min(found[key] for found in way) for way in (ours, other))
        yield Row("importing", what, "pydicom and OpenCV by hand", unit, a, b, "times as much", limit=_LIMIT)
    yield Row("importing", f"largest process after {sizes.dicoms} DICOM files", f"after {sizes.few_dicoms}", "MiB",
              ours[0]["mib"], few["mib"], "apart", limit=_LIMIT_MIB)  # fmt: skip


def write_set(folder: Path, count: int, px: int) -> None:
    """RSNA's form: a table, and files of smooth 12-bit pictures with some noise."""
    from ..support.dicom_files import write_dicom

    rng = np.random.default_rng(0)
    first = folder / "patterns"
    paths = []
    for number in range(_PATTERNS):
        coarse = rng.uniform(200, 3800, (12, 12)).astype(np.float32)
        smooth = cv2.resize(coarse, (px, px), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 8, (px, px))
        paths.append(write_dicom(first / f"{number}.raw", np.clip(smooth, 0, 4095).astype(np.uint16), "jpeg2000",
                                 WindowCenter=2048, WindowWidth=4000))  # fmt: skip
    (folder / IMAGES).mkdir(parents=True)
    lines = ["patientId,x,y,width,height,Target"]
    for number in range(count):
        (folder / IMAGES / f"p{number:04d}.dcm").write_bytes(paths[number % _PATTERNS].read_bytes())
        lines.append(f"p{number:04d},10,10,{px // 4},{px // 4},1")
    (folder / _TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measured(way: str, source: Path, goal: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.importing_ways", way, str(source), str(goal)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
