"""Tasks for submissions: predict, validate, submit exactly once, list with their scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context

from kit.core.errors import KitError
from kit.tasks.command import (
    ALLOW_SEEN,
    RUN,
    SET,
    SET_AFTERWARDS,
    SET_UPLOAD,
    WORKSPACE,
    chosen_run,
    command,
    new_id,
    upload_knobs,
    view_command,
    whole_number,
    workspace_knobs,
)
from kit.tasks.console import confirm, progress_bar, show_table

if TYPE_CHECKING:
    from kit.config import KaggleConfig
    from kit.runs.folder import Run
    from kit.submission.attempts import Clock, SubmissionApi
    from kit.submission.folders import Attempt, Submission
    from kit.submission.preview import Outgoing
    from kit.submission.upload import UploadPlan


@command(
    iterable=["set_", "allow"],
    help=WORKSPACE
    | RUN
    | SET_AFTERWARDS
    | ALLOW_SEEN
    | {"message": "what this submission is, for the list of submissions"},
)
def predict(
    context: Context,
    run: str | None = None,
    message: str | None = None,
    set_: Sequence[str] | None = None,
    allow: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Predict the test images with a run: the next numbered submission, checked before it is filed."""
    submission = _predict(chosen_run(Path(workspace), run), message, tuple(set_ or ()), tuple(allow or ()))
    print(f"images: `{view_command(workspace, '--submission', submission.number)}`")
    print(f"submission {submission.number:04d}: {submission.csv}")


@command(iterable=["set_"], help=WORKSPACE | SET | {"file": "CSV file to check (default: the newest submission's)"})
def validate(
    context: Context, file: str | None = None, set_: Sequence[str] | None = None, workspace: str = "."
) -> None:
    """Check a submission file against the mapping, row by row."""
    from kit.core.files import require_existing
    from kit.schemas.tables import validate_submission
    from kit.submission import folders, preview

    folder = Path(workspace)
    knobs = workspace_knobs(folder, set_ or ())
    expected = knobs.competition.expected_ids
    if file is None:  # judged as `invoke submit` judges it
        submission = folders.newest(folder / "submissions")
        given = any(text.strip().startswith("competition.expected_ids") for text in set_ or ())
        path, rows = submission.csv, preview.count_valid_rows(folder, submission, expected if given else None)
    else:
        path = Path(file)
        require_existing(path, "--file")
        rows = len(validate_submission(path, folder / "data", expected, knobs.data.orientation))
    print(f"{path}: valid, {rows} IDs")
    edited = preview.edited_submission(folder, path)
    if edited is not None:
        print(f"it was changed since submission {edited.number:04d} was filed: {preview.how_to_file(path)}")


@command(
    iterable=["set_"],
    help=WORKSPACE
    | SET_UPLOAD
    | {
        "message": "what this submission is, for Kaggle's list (default: the message it was filed with)",
        "submission": "number of a submission (default: the newest one)",
        "file": "CSV file that was made or edited by hand: filed as the next submission, then sent",
        "dry_run": "show what would be sent; needs neither an account nor a network",
        "yes": "send without asking",
        "again": "send once more what was uploaded before",
    },
)
def submit(
    context: Context,
    message: str | None = None,
    submission: str | None = None,
    file: str | None = None,
    dry_run: bool = False,
    yes: bool = False,
    again: bool = False,
    set_: Sequence[str] | None = None,
    workspace: str = ".",
) -> None:
    """Upload a submission to Kaggle exactly once and wait for its score."""
    folder, number = Path(workspace), whole_number("--submission", submission, first=1)
    knobs, expected = upload_knobs(folder, set_ or ())
    if file is not None and number is not None:
        raise KitError("one of --file and --submission", "both", "leave one of them out")
    if dry_run:
        show_dry_run(folder, number, message, file, expected)
        return
    from kit.kaggle.competition_api import connect
    from kit.submission import upload
    from kit.submission.attempts import uploading

    kaggle, clock = connect(knobs), _clock()
    with uploading(folder):
        outgoing = _outgoing(folder, number, message, file, expected)
        plan = upload.prepare(kaggle, outgoing, again, knobs, clock)
        attempt = plan.attempt or _confirm_and_send(kaggle, plan, knobs, yes, folder, expected)
        print(f"ref {attempt.ref}: uploaded{'' if plan.step == 'send' else ' before'}")
        attempt = attempt if plan.step == "done" else upload.wait(kaggle, plan, attempt, knobs, clock)
        upload.show_outcome(outgoing, attempt, print)


@command(help=WORKSPACE | {"refresh": "ask Kaggle for pending scores"})
def submissions(context: Context, refresh: bool = False, workspace: str = ".") -> None:
    """List the submissions with local and public scores, the best marked, and plot both."""
    from kit.submission import scoreboard
    from kit.submission.folders import read_submissions

    folder = Path(workspace) / "submissions"
    if refresh:
        from kit.kaggle.competition_api import connect
        from kit.submission.attempts import refresh_scores

        changed = refresh_scores(connect(workspace_knobs(Path(workspace), ()).kaggle), folder)
        print(f"{changed} of the uploads changed")
    show_table("submissions", scoreboard.COLUMNS, scoreboard.rows(read_submissions(folder)))
    if refresh or scoreboard.plot_is_stale(folder):
        scoreboard.draw(folder)
    if (folder / scoreboard.PLOT_NAME).exists():
        print(f"plot: {folder / scoreboard.PLOT_NAME}")


def show_dry_run(
    workspace: Path, number: int | None, message: str | None, file: str | None = None, expected: int | None = None
) -> None:
    """Print what `invoke submit` would send. Raises KitError if there is nothing valid to send."""
    from kit.submission import preview

    outgoing = _outgoing(workspace, number, message, file, expected)
    page = _how_to_see(workspace, outgoing.submission)
    print("\n".join(preview.preview_lines(outgoing, "unknown in a dry run", page=page)))
    print("dry run: nothing was sent")


def _outgoing(
    workspace: Path, number: int | None, message: str | None, file: str | None, expected: int | None
) -> Outgoing:
    from kit.submission import preview

    if file is not None:
        number = preview.file_by_hand(workspace, Path(file), message, expected).number
    return preview.choose_outgoing(workspace, number, message, lambda run: _predict(run, message), expected)


def _confirm_and_send(
    kaggle: SubmissionApi, plan: UploadPlan, knobs: KaggleConfig, yes: bool, workspace: Path, expected: int | None
) -> Attempt:
    from kit.submission import preview, upload

    submission = plan.outgoing.submission
    page = _how_to_see(workspace, submission) if yes else _page(workspace, submission, expected)
    print("\n".join(preview.preview_lines(plan.outgoing, upload.limit_text(plan.limits), page=page)))
    confirm("send it?", yes)
    return upload.send(kaggle, plan, knobs, new_id, _clock())


def _how_to_see(workspace: Path, submission: Submission) -> str:
    return f"`{view_command(workspace, '--submission', submission.number)}` shows its boxes on the test images"


def _page(workspace: Path, submission: Submission, expected: int | None) -> str:
    """The page of a submission, made now; why not, if it cannot be made: that stops no upload."""
    from kit.evaluation.submission_view import view_submission

    try:
        return str(view_submission(workspace, submission, progress_bar, expected)[0])
    except KitError as error:
        return f"not made: {error.found}"


def _predict(
    run: Run, message: str | None, assignments: Sequence[str] = (), allow: Sequence[str] = ()
) -> Submission:
    from kit.evaluation.predict import predict

    return predict(run, message, progress_bar, assignments, allow)


def _clock() -> Clock:
    from kit.submission.attempts import Clock

    return Clock(time.time, time.sleep)
