"""Every step on the synthetic competition, and the score that its server would give.

Every step knows whether it was done before, so the same call goes on after a kill.
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
    """The score of the filed submission on all test images, the floor, and where to look."""

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
    """The result of a demo that ended, if its submission is still as it was filed."""
    path = workspace / RESULT
    if not path.exists():
        return None
    result = read_record(path, DemoResult, f"delete {path}; the demo then goes on")
    submission = Path(result.submission)
    return result if submission.exists() and sha256(submission) == result.submission_sha256 else None


def clear_demo(workspace: Path) -> None:
    """Delete what an earlier demo made. Raises KitError where the folder is no demo's."""
    if not workspace.exists():
        return
    strange = {path.name for path in workspace.iterdir()} - _DEMO_NAMES
    if strange and not (workspace / TRUTH).exists():
        raise KitError(
            f"{workspace} to be a demo's folder",
            f"{min(strange)} in it, and no {TRUTH}",
            "name another --workspace",
        )
    doomed = workspace.with_name(f".{workspace.name}{PARTIAL_SUFFIX}")
    shutil.rmtree(doomed, ignore_errors=True)  # of a call that was killed here
    workspace.rename(doomed)
    shutil.rmtree(doomed)


def run_demo(workspace: Path, clock: Callable[[], float], track: Track = silent) -> DemoResult:
    """Make the competition, train, evaluate, predict, file one submission, score it."""
    import pandas as pd

    from kit.choosing import location_prior, one_box
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
        raise KitError("the demo to run in one process", "several", "`invoke demo` outside of torchrun")
    report = current_report(trained.run, track)
    filed = [one for one in read_submissions(workspace / "submissions") if one.origin.run == _PRESET]
    submission = filed[-1] if filed else predict(trained.run, "demo", track)
    test = load_test(workspace, preset(_PRESET), track)
    truth = pd.read_csv(workspace / TRUTH)
    floor = one_box.prior_answers(
        location_prior.Prior.from_dict(report["prior"]), test.mapping, image_sizes(test.pixels.facts), 1.0
    )

    def map50(answers: pd.DataFrame) -> float:
        detections = one_box.answers_to_detections(answers)
        return average_precision.score_detections(truth, detections, test.image_ids).map50

    result = DemoResult(
        score=map50(pd.read_csv(submission.csv)),
        prior_score=map50(floor),
        local_score=report["one_box"]["map50"],
        test_images=len(test.image_ids),
        seconds=round(clock() - started, 1),
        submission=str(submission.csv),
        submission_sha256=sha256(submission.csv),
        report=str(trained.run.folder / "report.html"),
        figures=str(trained.run.folder / "figures"),
    )
    for left in workspace.glob(f".{RESULT}.*{PARTIAL_SUFFIX}"):  # of a call that was killed while it wrote
        left.unlink(missing_ok=True)
    write_json(workspace / RESULT, asdict(result))
    return result
