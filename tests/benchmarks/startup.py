"""How long the light verbs take to start, against what they cannot do without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.data.synthetic.generator import LABELS, write_competition

from .measure import Row, in_turn
from .sizes import Sizes

ROOT = Path(__file__).parents[2]
_LIMIT = 0.3  # seconds
_REPORT_LIMIT = 0.5


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    write_competition(folder, 5, train_images=8, test_images=sizes.viewed_images, size_px=64)
    csv = folder / "submission.csv"
    _submission(folder).to_csv(csv, index=False)
    knob = f"competition.expected_ids={sizes.viewed_images}"
    invoke = [sys.executable, "-m", "invoke"]
    validate = ["validate", "--file", csv, "--workspace", folder, "--set", knob]
    for what, ours, imports, limit in (
        ("`invoke --list`", [*invoke, "--list"], "invoke", _LIMIT),
        ("`invoke validate`", [*invoke, *map(str, validate)], "invoke, pandas, pandera.pandas", _LIMIT),
        ("importing kit.evaluation.report", [sys.executable, "-c", "import kit.evaluation.report"],
         "pandas, pandera.pandas", _REPORT_LIMIT),
    ):  # fmt: skip
        bare = [sys.executable, "-c", f"import {imports}"]
        _run(ours)
        _run(bare)
        a, b = in_turn(lambda ours=ours: _run(ours), lambda bare=bare: _run(bare), sizes.starts)
        yield Row("startup", what, f"the interpreter with {imports.replace('.pandas', '')}",
                  "s", a, b, "apart", limit=limit)  # fmt: skip


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def _submission(folder: Path) -> pd.DataFrame:
    mapping = pd.read_csv(folder / "data" / "ID_to_Image_Mapping.csv")
    corners = pd.DataFrame([[1.0, 1.0, 9.0, 9.0]] * len(mapping), columns=CORNERS)
    return mapping.join(corners).assign(confidence=0.5, label=LABELS[0])
