"""What would be sent to Kaggle: the submission, its checks, the text; all of it known without a network.

`submit --dry-run` shows this and ends; `submit` shows the same and asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.config import CompetitionConfig, load
from kit.core.errors import KitError
from kit.core.files import sha256
from kit.data.provenance import downloaded_slug
from kit.runs.folder import Run, names, newest_finished, read_finished
from kit.schemas.tables import validate_submission
from kit.submission.folders import Submission, read_submissions

MESSAGE_LETTERS = 200  # Kaggle names no limit; the mark at the end of the text must survive whatever it is
_EARLIER_SHOWN = 3

log = logging.getLogger("kit")


@dataclass(frozen=True)
class Outgoing:
    """A submission that was examined and may be sent: where to, with which words, and what came before it."""

    submission: Submission
    competition: str
    message: str
    rows: int
    earlier: tuple[Submission, ...]

    def text(self, attempt_id: str) -> str:
        """What Kaggle shows beside the submission; the mark at its end is how it is found again."""
        return f"{self.message} {mark(self.submission, attempt_id)}"


def mark(submission: Submission, attempt_id: str) -> str:
    """``[kit 0007 <id>]``."""
    return f"[kit {submission.number:04d} {attempt_id}]"


def outgoing(
    workspace: Path,
    number: int | None,
    message: str | None,
    predict: Callable[[Run], Submission],
) -> Outgoing:
    """Choose and examine what would be sent; the message defaults to the submission's own.

    The submission is that ``number`` or the newest valid one; where the newest finished run has none yet,
    ``predict`` makes it. It goes to the competition that the data was downloaded from, else to its run's.
    Raises KitError where there is nothing valid to send.
    """
    if message is not None:
        _require_message(message)
    submission = _chosen(workspace, number, predict)
    words = message or submission.origin.message
    _require_message(words)
    rows = examine(workspace, submission)
    scored = [one for one in read_submissions(workspace / "submissions") if one.public_score is not None]
    earlier = tuple(one for one in scored if one.number != submission.number)[-_EARLIER_SHOWN:]
    competition = downloaded_slug(workspace) or _competition(workspace, submission).slug
    return Outgoing(submission, competition, words, rows, earlier)


def examine(workspace: Path, submission: Submission) -> int:
    """The rows of a submission that is valid and as it was filed. Raises KitError with every fault."""
    require_unchanged(submission)
    expected = _competition(workspace, submission).expected_ids
    return len(validate_submission(submission.csv, workspace / "data", expected))


def require_unchanged(submission: Submission) -> None:
    """Raise KitError where the CSV is not the one that was filed."""
    found = sha256(submission.csv) if submission.csv.is_file() else None
    if found != submission.csv_sha256:
        raise KitError(
            f"{submission.csv} as it was filed (SHA-256 {submission.csv_sha256[:12]}...)",
            f"SHA-256 {found[:12]}..." if found else "no such file",
            "restore it from a copy, or `invoke predict` files a new one; --submission N sends another",
        )


def lines(outgoing: Outgoing, limit: str, attempt_id: str = "<id>") -> list[str]:
    """What is shown before anything is sent; ``limit`` says what is known of today's."""
    one = outgoing.submission
    rows = [
        ("submission", f"{one.number:04d}, {outgoing.rows} rows, SHA-256 {one.csv_sha256[:12]}"),
        ("file", str(one.csv)),
        ("to", f"https://www.kaggle.com/competitions/{outgoing.competition}"),
        ("message", outgoing.text(attempt_id)),
        ("run", one.origin.run),
        ("local score", local_score(one)),
        ("expected", expected_score(one)),
        ("earlier", "; ".join(map(_earlier, outgoing.earlier)) or "none has a public score"),
        ("uploads", _uploads(one)),
        ("left today", limit),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return [f"{name + ':':<{width}}{value}" for name, value in rows]


def local_score(submission: Submission) -> str:
    """The local score with its 95% interval, as far as they are known."""
    score, interval = submission.origin.local_score, submission.origin.local_interval
    if score is None:
        return "unknown"
    return f"{score:.3f}" + (f" (95%: {interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def expected_score(submission: Submission) -> str:
    """The score to expect on the leaderboard, with its range."""
    expected = submission.origin.expected
    if not expected:
        return "unknown"
    return f"{expected['mean']:.3f} on the leaderboard ({expected['low']:.3f} to {expected['high']:.3f})"


def _competition(workspace: Path, submission: Submission) -> CompetitionConfig:
    """The competition's knobs of the submission's run as they are now, or as they were where the run is gone."""
    origin = submission.origin
    if origin.run in names(workspace):
        return load(Run(workspace, origin.run).config).competition
    return CompetitionConfig(**origin.config.get("competition", {}))


def _require_message(message: str) -> None:
    do = f'write --message "..." as one line of at most {MESSAGE_LETTERS} letters'
    if not message.strip() or not message.isprintable():
        raise KitError("a message of one line that says what this submission is", repr(message), do)
    if len(message) > MESSAGE_LETTERS:
        raise KitError(f"a message of at most {MESSAGE_LETTERS} letters", f"{len(message)}", do)


def _chosen(workspace: Path, number: int | None, predict: Callable[[Run], Submission]) -> Submission:
    filed = read_submissions(workspace / "submissions")
    if number is not None:
        return _numbered(filed, number)
    run = _run_without_submission(workspace, filed)
    if run is not None:
        log.info("run %s has no submission yet: it is made first", run.name)
        return predict(run)
    for submission in reversed(filed):
        try:
            examine(workspace, submission)
        except KitError:
            if submission is filed[0]:
                raise
            log.warning("submission %04d is not valid and passed over; --submission shows why", submission.number)
        else:
            return submission
    raise AssertionError("there is a submission, or the lack of a run has raised")


def _numbered(filed: Sequence[Submission], number: int) -> Submission:
    for submission in filed:
        if submission.number == number:
            return submission
    numbers = ", ".join(f"{one.number:04d}" for one in filed[-8:])
    raise KitError("the number of a submission", f"{number}", f"the newest are: {numbers or 'none'}")


def _run_without_submission(workspace: Path, filed: Sequence[Submission]) -> Run | None:
    if filed and not any(Run(workspace, name).finished.exists() for name in names(workspace)):
        return None
    run = newest_finished(workspace)
    weights = read_finished(run).weights  # a run that was trained anew under its name has none yet
    made = any(one.origin.run == run.name and one.origin.weights == weights for one in filed)
    return None if made else run


def _earlier(submission: Submission) -> str:
    return f"{submission.number:04d} public {submission.public_score:.3f}, local {local_score(submission)}"


def _uploads(submission: Submission) -> str:
    if not submission.attempts:
        return "none yet"
    newest = submission.attempts[-1]
    known = f"ref {newest.ref}" if newest.ref is not None else f"id {newest.id}"
    return f"{len(submission.attempts)}, the last {newest.status} ({known}, {newest.at})"
