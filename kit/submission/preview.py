"""Choose, or file, and check the submission to upload, and show what would be sent. Needs no network.

`submit --dry-run` shows the preview and ends; `submit` shows it and asks for confirmation.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kit.config import CompetitionConfig, Config, load
from kit.core.errors import KitError, reason
from kit.core.files import require_existing, sha256
from kit.core.json_files import as_record
from kit.core.number_text import between
from kit.data.provenance import downloaded_slug
from kit.runs.folder import Run, finished_runs, names, newest_finished, read_finished, workspace_config
from kit.runs.stages import NOT_RECORDED, stage_lines
from kit.schemas.tables import validate_submission
from kit.submission.folders import (
    BY_HAND,
    MANIFEST_NAME,
    Origin,
    Submission,
    newest,
    of_bytes,
    read_submissions,
    write_submission,
)
from kit.submission.messages import require_message

_EARLIER_SHOWN = 3

log = logging.getLogger("kit")


@dataclass(frozen=True)
class Outgoing:
    """A valid submission with its competition, message and number of rows, and earlier ones with a public score."""

    submission: Submission
    competition: str
    message: str
    rows: int
    earlier: tuple[Submission, ...]

    def text(self, attempt_id: str) -> str:
        """The description on Kaggle; the mark at its end identifies the attempt."""
        return f"{self.message} {mark(self.submission, attempt_id)}"


def mark(submission: Submission, attempt_id: str) -> str:
    """The mark of an attempt in a description on Kaggle: ``[kit 0007 <id>]``."""
    return f"[kit {submission.number:04d} {attempt_id}]"


def choose_outgoing(
    workspace: Path,
    number: int | None,
    message: str | None,
    predict: Callable[[Run], Submission],
    expected_ids: int | None = None,
) -> Outgoing:
    """Choose and check the submission to upload.

    Args:
        workspace: The folder that holds data/, runs/ and submissions/.
        number: The number of the submission; by default the newest one. No other is taken if it is not valid.
        message: The message; by default the submission's own.
        predict: Makes a submission of the newest finished run, if that has none and ended after the newest one.
        expected_ids: The number of rows; by default that of the submission's competition.

    Returns:
        The submission, for the competition in data/, else for that of its run.

    Raises:
        KitError: There is no such submission, it is not valid, or the message is not one short line.
    """
    if message is not None:
        require_message(message)
    submission = _chosen(workspace, number, predict)
    text = message or submission.origin.message
    require_message(text)
    rows = count_valid_rows(workspace, submission, expected_ids)
    others = [other for other in read_submissions(workspace / "submissions") if other.number != submission.number]
    earlier = tuple(other for other in others if other.public_score is not None)[-_EARLIER_SHOWN:]
    competition = downloaded_slug(workspace) or _competition(workspace, submission).slug
    return Outgoing(submission, competition, text, rows, earlier)


def file_by_hand(workspace: Path, path: Path, message: str | None, expected_ids: int | None = None) -> Submission:
    """File a CSV that the user made as the next numbered submission, after the checks of any other.

    The same bytes are filed once: a second call returns their submission, so that `submit` continues with it.

    Args:
        workspace: The folder that holds data/, runs/ and submissions/.
        path: The CSV file.
        message: What this submission is; by default "made by hand".
        expected_ids: The number of rows; by default that of the run that finished last, else the knob's default.

    Returns:
        The submission; its run is `BY_HAND`, and it has no local score.

    Raises:
        KitError: The file cannot be read, or the message is not one short line.
        TableError: The file is not valid; the error lists every fault.
    """
    if message is not None:
        require_message(message)
    folder, data = workspace / "submissions", workspace / "data"
    knobs = workspace_config(workspace)
    competition, orientation = knobs.competition, knobs.data.orientation
    if expected_ids is not None:
        competition = replace(competition, expected_ids=expected_ids)
    require_existing(path, "--file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KitError(f"to read {path}", reason(error), "name a CSV file with --file") from error
    validate_submission(path, data, competition.expected_ids, orientation)  # the faults name the user's own file
    filed = of_bytes(folder, hashlib.sha256(content).hexdigest())
    if filed is not None:
        log.info("%s has the bytes of submission %04d, which is taken", path, filed.number)
        return filed
    config = {"competition": asdict(competition), "data": {"orientation": orientation}}
    origin = Origin(message or "made by hand", BY_HAND, None, config=config)
    return write_submission(
        folder, content.decode("utf-8"), origin,
        check=lambda copy: validate_submission(copy, data, competition.expected_ids, orientation),
    )  # fmt: skip


def count_valid_rows(workspace: Path, submission: Submission, expected_ids: int | None = None) -> int:
    """The number of rows of a submission, by default that of its competition.

    Raises KitError with every fault, or if its CSV was changed since it was filed.
    """
    require_unchanged(submission)
    expected = expected_ids or _competition(workspace, submission).expected_ids
    orientation = _orientation(workspace, submission)
    return len(validate_submission(submission.csv, workspace / "data", expected, orientation, _anew(submission)))


def _anew(submission: Submission) -> str:
    """What to do about a filed CSV that is not valid (any more): a filed one never changes."""
    copy = "`invoke submit --file COPY` files a corrected copy of it"
    made = submission.origin.run
    return copy if made == BY_HAND else f"`invoke predict --run {made}` files a new one; or {copy}"


def require_unchanged(submission: Submission) -> None:
    """Raise KitError if the CSV is not the one that was filed."""
    digest = sha256(submission.csv) if submission.csv.is_file() else None
    if digest != submission.csv_sha256:
        others = "restore it from a copy, or `invoke predict` files a new one; --submission N sends another"
        raise KitError(
            f"{submission.csv} as it was filed (SHA-256 {submission.csv_sha256[:12]}...)",
            f"SHA-256 {digest[:12]}..." if digest else "no such file",
            f"if you changed it, {how_to_file(submission.csv)}; otherwise {others}" if digest else others,
        )


def edited_submission(workspace: Path, path: Path) -> Submission | None:
    """The submission whose CSV this file is, if it was changed since it was filed; None for any other file."""
    folder = workspace / "submissions"
    if path.resolve().parent.parent != folder.resolve():
        return None
    own = [one for one in read_submissions(folder) if one.csv.resolve() == path.resolve()]
    return next((one for one in own if sha256(path) != one.csv_sha256), None)


def how_to_file(path: Path) -> str:
    """How a file that was edited by hand becomes a submission."""
    return f"`invoke submit --file {shlex.quote(str(path))}` files it as a new submission"


def preview_lines(outgoing: Outgoing, limit: str, attempt_id: str = "<id>", page: str = "") -> list[str]:
    """The preview as text; ``limit`` is today's limit as text, ``page`` says where its boxes can be seen."""
    submission = outgoing.submission
    rows = [
        ("submission", f"{submission.number:04d}, {outgoing.rows} rows, SHA-256 {submission.csv_sha256[:12]}"),
        ("file", str(submission.csv)),
        *([("page", page)] if page else []),
        ("to", f"https://www.kaggle.com/competitions/{outgoing.competition}"),
        ("message", outgoing.text(attempt_id)),
        ("run", submission.origin.run),
        *(("trained on", line) for line in trained_on_lines(submission)),
        ("local score", local_score_text(submission)),
        ("expected", expected_score_text(submission)),
        ("earlier", "; ".join(map(_earlier, outgoing.earlier)) or "none has a public score"),
        ("uploads", _uploads(submission)),
        ("left today", limit),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return [f"{name + ':':<{width}}{value}" for name, value in rows]


def trained_on_lines(submission: Submission) -> list[str]:
    """The data sets and starting weights behind a submission, a line for each stage of each of its runs."""
    origin = submission.origin
    if origin.run == BY_HAND:
        return [f"{NOT_RECORDED}: it was made by hand"]
    return stage_lines(origin.weights, origin.stages)


def local_score_text(submission: Submission) -> str:
    """The local score with its 95% interval, or "unknown"."""
    score, interval = submission.origin.local_score, submission.origin.local_interval
    if score is None:
        return "unknown"
    return f"{score:.3f}" + (f" (95%: {between(*interval)})" if interval else "")


def expected_score_text(submission: Submission) -> str:
    """The expected score on the leaderboard with its range, or "unknown"."""
    expected = submission.origin.expected
    if not expected:
        return "unknown"
    return f"{expected['mean']:.3f} on the leaderboard ({between(expected['low'], expected['high'])})"


def _competition(workspace: Path, submission: Submission) -> CompetitionConfig:
    """The section competition of the submission's run, or as it was recorded if the run is gone."""
    return knobs_of(workspace, submission).competition


def _orientation(workspace: Path, submission: Submission) -> str:
    """The knob data.orientation of the submission's run, or as it was recorded if the run is gone."""
    return knobs_of(workspace, submission).data.orientation


def knobs_of(workspace: Path, submission: Submission) -> Config:
    """The knobs of the submission's run; if the run is gone, those that decide what a valid submission is."""
    origin = submission.origin
    if origin.run in names(workspace):
        return load(Run(workspace, origin.run).config)
    recorded = origin.config.get("data", {})
    sections = {
        "competition": origin.config.get("competition", {}),
        "data": {name: recorded[name] for name in ("orientation",) if name in recorded},
    }
    manifest = submission.folder / MANIFEST_NAME
    do = f"restore {manifest} from a copy, or restore the run {origin.run!r}, whose knobs then count"
    return as_record(sections, Config, f"origin.config of {manifest}", do)


def _chosen(workspace: Path, number: int | None, predict: Callable[[Run], Submission]) -> Submission:
    filed = read_submissions(workspace / "submissions")
    if number is not None:
        return numbered(workspace, number)
    run = _newer_run(workspace, filed)
    if run is not None:
        if filed:
            require_unchanged(newest(workspace / "submissions"))  # an edit of it may be what is to be sent
        log.info("run %s has no submission yet; predicting first", run.name)
        return predict(run)
    return newest(workspace / "submissions")


def numbered(workspace: Path, number: int) -> Submission:
    """The submission with this number. Raises KitError with the newest numbers if there is none."""
    filed = read_submissions(workspace / "submissions")
    for submission in filed:
        if submission.number == number:
            return submission
    numbers = ", ".join(f"{submission.number:04d}" for submission in filed[-8:])
    do = f"the newest are: {numbers}" if numbers else "`invoke predict` files one"
    raise KitError("the number of a submission", f"{number}", do)


def _newer_run(workspace: Path, filed: Sequence[Submission]) -> Run | None:
    """The run that finished last, if it has no submission and finished after the newest one was filed.

    Raises KitError if another finished run cannot be read: it may be the newest, and no older one takes its place.
    """
    if filed and not finished_runs(workspace):
        return None
    run = newest_finished(workspace)
    finished = read_finished(run)  # a run that was trained anew under its name has other weights
    if any((one.origin.run, one.origin.weights) == (run.name, finished.weights) for one in filed):
        return None
    moments = [
        datetime.datetime.fromisoformat(text) for text in (finished.at, *(one.created_at for one in filed[-1:]))
    ]
    if moments[0] < max(moments):
        return None
    readable = {one.name for one in finished_runs(workspace)}
    broken = [name for name in names(workspace) if Run(workspace, name).finished.exists() and name not in readable]
    if broken:
        raise KitError(
            f"every finished run in {workspace / 'runs'} to be readable, to know the newest", ", ".join(broken),
            f"`invoke predict --run {run.name}` and `invoke submit` again, or move {broken[0]} out of that folder",
        )  # fmt: skip
    return run


def _earlier(submission: Submission) -> str:
    return f"{submission.number:04d} public {submission.public_score:.3f}, local {local_score_text(submission)}"


def _uploads(submission: Submission) -> str:
    if not submission.attempts:
        return "none yet"
    newest = submission.attempts[-1]
    known = f"ref {newest.ref}" if newest.ref is not None else f"id {newest.id}"
    return f"{len(submission.attempts)}, the last {newest.status} ({known}, {newest.at})"
