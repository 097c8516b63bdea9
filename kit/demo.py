"""The demo: make the synthetic competition, train, evaluate, predict, and score the submission.

Each step first checks whether it is done, so the same call continues after a kill.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.core.errors import KitError
from kit.core.files import PARTIAL_SUFFIX, explaining_write_errors, make_folder, sha256
from kit.core.json_files import read_record, write_json
from kit.core.locks import exclusive
from kit.core.progress import Track, silent
from kit.data.synthetic.generator import README, STAGING, TRUTH, write_competition
from kit.schemas.file_names import TABLE
from kit.submission.folders import Submission, read_submissions
from kit.submission.preview import require_unchanged

DEMO_SEED = 7
RESULT = "result.json"
_PRESET = "demo"
_LOCK, _TRASH = ".demo.lock", f".fresh{PARTIAL_SUFFIX}"
_FOLDERS = ("data", "runs", "submissions", "audit", "explore", "comparisons", "kernels", ".cache")
_BEGUN = {STAGING, ".cache", _TRASH, _LOCK, ".demo.holder"}  # what a call that was killed may leave alone
log = logging.getLogger("kit")


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
    try:
        is_own = submission.resolve().is_relative_to(workspace.resolve())
    except ValueError:  # a text that is no path
        is_own = False
    if not is_own:  # a copied folder's result has other paths
        return None
    return result if submission.is_file() and sha256(submission) == result.submission_sha256 else None


@contextlib.contextmanager
def holding_demo(workspace: Path) -> Iterator[None]:
    """Hold a demo's folder for this process. Raises KitError if another process holds it or it has other data."""
    if (workspace / "data" / TABLE).exists() and not (workspace / TRUTH).exists():
        raise _no_demo(workspace, f"data/{TABLE}")
    with exclusive(make_folder(workspace) / _LOCK, f"one `invoke demo` at a time in {workspace}"):
        yield


def clear_demo(workspace: Path) -> None:
    """Delete what an earlier demo made, and the folder if nothing else is in it; README.md in its folders is kept.

    Raises KitError if the folder is no demo's.
    """
    if not workspace.exists():
        return
    others = {path.name for path in workspace.iterdir()} - _BEGUN
    if others and not (workspace / TRUTH).exists():
        raise _no_demo(workspace, min(others))
    trash = workspace / _TRASH
    with explaining_write_errors(workspace):
        shutil.rmtree(trash, ignore_errors=True)  # left by a killed call
        trash.mkdir()
        made = [workspace / RESULT]
        for folder in (workspace / name for name in _FOLDERS):
            kept = (folder / README).exists()
            made += [path for path in folder.iterdir() if path.name != README] if kept else [folder]
        made += [workspace / STAGING, workspace / TRUTH]  # the last one says that this is a demo's folder
        for number, path in enumerate(made):
            if path.exists():
                path.rename(trash / str(number))
        shutil.rmtree(trash)
        if not any(workspace.iterdir()) and workspace.resolve() != Path.cwd():
            workspace.rmdir()


def _no_demo(workspace: Path, found: str) -> KitError:
    return KitError(
        f"{workspace} to be a demo's folder", f"{found} in it, and no {TRUTH}", "name another --workspace"
    )


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
    from kit.schemas.tables import read_annotations
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
    submission = _unchanged_submission(workspace) or predict(trained.run, "demo", track)
    test = load_test(workspace, preset(_PRESET), track)
    try:
        truth = read_annotations(workspace / TRUTH, test.pixels.facts)
    except KitError as error:
        do = f"`invoke demo --fresh --workspace {shlex.quote(str(workspace))}` makes the demo anew"
        raise KitError(error.expected, error.found, do) from error
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


def _unchanged_submission(workspace: Path) -> Submission | None:
    """The newest submission of the demo's run whose CSV is as it was filed; None if there is none."""
    for submission in reversed(read_submissions(workspace / "submissions")):
        if submission.origin.run == _PRESET:
            try:
                require_unchanged(submission)
            except KitError as error:
                log.warning("submission %04d is passed over: %s", submission.number, error.found)
            else:
                return submission
    return None
