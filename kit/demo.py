"""The demo: make the synthetic competition, train, evaluate, predict, and score the submission.

Each step first checks whether it is done, so the same call continues after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.core.errors import KitError
from kit.core.files import PARTIAL_SUFFIX, sha256
from kit.core.json_files import read_record, write_json
from kit.core.progress import Track, silent
from kit.data.synthetic.generator import STAGING, TRUTH, write_competition
from kit.schemas.file_names import TABLE
from kit.submission.folders import read_submissions

DEMO_SEED = 7
RESULT = "result.json"
_PRESET = "demo"
_DEMO_NAMES = {STAGING, ".cache"}


@dataclass(frozen=True)
class DemoResult:
    """The submission's score on all test images, the location prior's score, and the paths of the results."""

    score: float
    prior_score: float
    local_score: float
    test_images: int
    seconds: float
    submission: str
    submission_sha256: str
    report: str
    figures: str


def finished_demo(workspace: Path) -> DemoResult | None:
    """The result of a finished demo, or None if there is none or its submission was changed or deleted."""
    path = workspace / RESULT
    if not path.exists():
        return None
    result = read_record(path, DemoResult, f"delete {path}; the demo then continues")
    submission = Path(result.submission)
    return result if submission.exists() and sha256(submission) == result.submission_sha256 else None


def clear_demo(workspace: Path) -> None:
    """Delete the folder of an earlier demo. Raises KitError if the folder is no demo's."""
    if not workspace.exists():
        return
    others = {path.name for path in workspace.iterdir()} - _DEMO_NAMES
    if others and not (workspace / TRUTH).exists():
        raise KitError(
            f"{workspace} to be a demo's folder",
            f"{min(others)} in it, and no {TRUTH}",
            "name another --workspace",
        )
    trash = workspace.with_name(f".{workspace.name}{PARTIAL_SUFFIX}")
    shutil.rmtree(trash, ignore_errors=True)  # left by a killed call
    workspace.rename(trash)
    shutil.rmtree(trash)


def run_demo(workspace: Path, clock: Callable[[], float], track: Track = silent) -> DemoResult:
    """Make the competition, train, evaluate, predict, file one submission and score it. ``clock`` gives seconds."""
    import pandas as pd

    from kit.choosing import one_box
    from kit.config import preset
    from kit.data.competition import load_test
    from kit.evaluation.predict import predict
    from kit.evaluation.report import current_report
    from kit.metrics import average_precision
    from kit.schemas.image_headers import image_sizes
    from kit.training.train import train

    started = clock()
    if not (workspace / "data" / TABLE).exists():
        write_competition(workspace, DEMO_SEED, track=track)
    trained = train(workspace, _PRESET, _PRESET, (), track)
    if trained is None:
        raise KitError(
            "the demo to run in one process", "several processes", "start `invoke demo` without torchrun"
        )
    report = current_report(trained.run, track)
    filed = [past for past in read_submissions(workspace / "submissions") if past.origin.run == _PRESET]
    submission = filed[-1] if filed else predict(trained.run, "demo", track)
    test = load_test(workspace, preset(_PRESET), track)
    truth = pd.read_csv(workspace / TRUTH)
    prior_only = one_box.prior_answers(report.prior, test.mapping, image_sizes(test.pixels.facts), 1.0)

    def map50(answers: pd.DataFrame) -> float:
        detections = one_box.answers_to_detections(answers)
        return average_precision.score_detections(truth, detections, test.image_ids).map50

    result = DemoResult(
        score=map50(pd.read_csv(submission.csv)),
        prior_score=map50(prior_only),
        local_score=report.one_box.map50,
        test_images=len(test.image_ids),
        seconds=round(clock() - started, 1),
        submission=str(submission.csv),
        submission_sha256=sha256(submission.csv),
        report=str(trained.run.folder / "report.html"),
        figures=str(trained.run.folder / "figures"),
    )
    for partial in workspace.glob(f".{RESULT}.*{PARTIAL_SUFFIX}"):  # left by a killed call
        partial.unlink(missing_ok=True)
    write_json(workspace / RESULT, asdict(result))
    return result
