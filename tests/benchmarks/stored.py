"""The verbs that work on stored detections, as commands: seconds and memory against what they cannot do without."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes.geometry import CORNERS
from kit.config import VIEW_NAMES, Config
from kit.data.competition import load_test, load_training
from kit.data.splits import cross_fits
from kit.data.synthetic.generator import write_competition
from kit.runs.adoption import adopt
from kit.runs.folder import Run

from .measure import Row
from .sizes import Sizes

ROOT = Path(__file__).parents[2]
_FOLDS, _SIDE_PX, _REAL = 5, 128, 0.05  # the share of the detections that lie on a true box
_MOST_SECONDS, _MOST_MIB, _COMPARE_SECONDS = 12, 800, 10
_AUTO = ("fusion.method", "fusion.iou", "decision.localisation", "decision.box_scale")
_AUTO_SECONDS, _AUTO_MIB = 60, 2048
_SMALL_SECONDS, _PREDICT_SECONDS = 3, 2
_READ = "import pandas; [pandas.read_parquet(path) for path in {paths!r}]"
_DRAW = "import matplotlib.pyplot"
# A child's most memory counts that of the process that it was forked from: a small one.
_LAUNCHER = """
import resource, subprocess, sys, time
started = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
_CHECK = (
    "from pathlib import Path; from kit.schemas.tables import validate_submission; "
    "pandas.read_csv({csv!r}).to_csv({again!r}, index=False); "
    "validate_submission(Path({again!r}), Path({data!r}), {ids})"
)


def rows(sizes: Sizes, folder: Path) -> Iterator[Row]:
    """The rows of this module."""
    for name, images, tested, boxes in (
        ("large", sizes.stored_images, sizes.stored_tested, sizes.stored_boxes),
        ("demo", sizes.demo_images, sizes.demo_tested, sizes.demo_boxes),
    ):
        yield from _rows_of(_Stored.made(folder / name, images, tested, boxes), sizes, is_large=name == "large")


@dataclass(frozen=True)
class _Stored:
    """A workspace with two adopted runs."""

    workspace: Path
    held_out: int  # rows
    tested: int
    test_images: int

    @classmethod
    def made(cls, workspace: Path, images: int, tested: int, boxes: int) -> _Stored:
        write_competition(workspace, 3, train_images=images, test_images=tested, size_px=_SIDE_PX)
        data, test = load_training(workspace, Config()), load_test(workspace, Config().replace(_ids(tested)))
        fold_of = {
            image_id: number for number, fold in enumerate(cross_fits(data, Config().data, 0)) for image_id in fold
        }
        for seed, run in enumerate(("first", "second")):
            rng = np.random.default_rng(seed)
            held = _detections(rng, data.image_ids, 1, boxes, data.labels, data.annotations)
            held["fold"] = held["image_id"].map(fold_of)
            asked = _detections(rng, test.image_ids, _FOLDS, boxes, data.labels, data.annotations)
            path = workspace / f"{run}.parquet"
            pd.concat([held.assign(part="train"), asked.assign(part="test")]).to_parquet(path, index=False)
            arrival = adopt(Run(workspace, run), path, None, (f"competition.expected_ids={tested}",))
        return cls(workspace, arrival.validation_rows, arrival.test_rows, tested)

    def paths(self, part: str) -> list[str]:
        return [str(self.workspace / "runs" / "first" / "detections" / f"{part}.parquet")]


def _ids(count: int) -> dict[str, int]:
    return {"competition.expected_ids": count}


def _detections(
    rng: np.random.Generator,
    image_ids: Sequence[str],
    folds: int,
    boxes: int,
    labels: Sequence[str],
    truth: pd.DataFrame,
) -> pd.DataFrame:
    """``boxes`` of each fold and view on each image, anywhere but for a few on the true boxes."""
    image, fold, view, _ = (axis.ravel() for axis in np.indices((len(image_ids), folds, len(VIEW_NAMES), boxes)))
    centre, half = rng.uniform(0.2, 0.8, (len(image), 2)), rng.uniform(0.05, 0.15, (len(image), 2))
    corners = np.concatenate([centre - half, centre + half], axis=1) * _SIDE_PX
    label = np.array(labels, dtype=object)[rng.integers(0, len(labels), len(image))]
    table = pd.DataFrame(corners, columns=CORNERS).assign(
        image_id=np.array(image_ids, dtype=object)[image],
        fold=fold,
        view=np.array(VIEW_NAMES, dtype=object)[view],
        score=rng.beta(1, 4, len(image)) * 0.8,
        label=label,
    )
    first = truth.drop_duplicates("image_id").set_index("image_id").reindex(table["image_id"])
    real = (rng.random(len(table)) < _REAL) & first["label"].notna().to_numpy()
    table.loc[real, CORNERS] = first[CORNERS].to_numpy()[real]
    table.loc[real, "label"] = first["label"].to_numpy()[real]
    table.loc[real, "score"] += 0.2 * rng.random(int(real.sum()))
    return table


def _rows_of(stored: _Stored, sizes: Sizes, is_large: bool) -> Iterator[Row]:
    of, runs = ["--workspace", str(stored.workspace)], ["--run", "first"]
    csv = str(stored.workspace / "submissions" / "0001-run-first" / "submission.csv")
    read_held = _READ.format(paths=stored.paths("validation"))
    size = f"{stored.held_out:,} stored detections" if is_large else "a run of the demo's size"
    bare = f"{read_held}; {_DRAW}" if is_large else f"import pandas, pandera.pandas; {_DRAW}"
    against = "reading them, importing matplotlib" if is_large else "importing pandas, pandera, matplotlib"
    ours, other, mib = _in_turn(["evaluate", *of, *runs], bare, sizes)
    yield Row("stored", f"`invoke evaluate` of {size}", against, "s", ours, other, "apart",
              limit=None if is_large else _SMALL_SECONDS, ceiling=_MOST_SECONDS if is_large else None,
              note=f"{mib:,.0f} MiB")  # fmt: skip
    if is_large:
        yield Row("stored", f"memory of `invoke evaluate` of {size}", "no limit but the machine's", "MiB", mib,
                  mib, "times as much", ceiling=_MOST_MIB)  # fmt: skip
    _seconds(["-m", "invoke", "predict", *of, *runs])
    check = _CHECK.format(
        csv=csv, again=str(stored.workspace / "again.csv"), data=str(stored.workspace / "data"),
        ids=stored.test_images,
    )  # fmt: skip
    ours, other, mib = _in_turn(
        ["predict", *of, *runs], f"{_READ.format(paths=stored.paths('test'))}; {check}", sizes
    )
    size = f"{stored.tested:,} stored detections" if is_large else size
    yield Row("stored", f"`invoke predict` of {size}", "reading them, writing and checking the CSV", "s", ours,
              other, "apart", limit=_PREDICT_SECONDS, note=f"{mib:,.0f} MiB")  # fmt: skip
    if is_large:
        two = ["compare", *of, *runs, "--run", "second"]
        _seconds(["-m", "invoke", "evaluate", *of, "--run", "second"])
        ours, other, mib = _in_turn(two, bare, sizes)
        yield Row("stored", f"`invoke compare` of two runs of {stored.held_out:,} stored detections", against,
                  "s", ours, other, "apart", ceiling=_COMPARE_SECONDS, note=f"{mib:,.0f} MiB")  # fmt: skip
        every = ["evaluate", *of, *runs, *(part for knob in _AUTO for part in ("--set", f"{knob}=auto"))]
        ours, other, mib = _in_turn(every, bare, sizes)
        size = f"{stored.held_out:,} stored detections, every device auto"
        yield Row("stored", f"`invoke evaluate` of {size}", against, "s", ours, other, "apart",
                  ceiling=_AUTO_SECONDS, note=f"{mib:,.0f} MiB")  # fmt: skip
        yield Row("stored", f"memory of `invoke evaluate` of {size}", "no limit but the machine's", "MiB", mib,
                  mib, "times as much", ceiling=_AUTO_MIB)  # fmt: skip


def _in_turn(verb: Sequence[str], bare: str, sizes: Sizes) -> tuple[float, float, float]:
    """Median seconds of a verb and of the bare program, in turn, and the verb's largest memory in MiB."""
    pairs = [(_seconds(["-m", "invoke", *verb]), _seconds(["-c", bare])) for _ in range(sizes.stored_repeats)]
    seconds = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
    return *seconds, max(pair[0][1] for pair in pairs)


def _seconds(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds and the most memory in MiB of a Python process. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-c", _LAUNCHER, sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds, kib = map(float, done.stdout.split())
    return seconds, kib / 1024
