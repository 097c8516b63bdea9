"""Find the attempts to upload in Kaggle's list of submissions, and record their status and score.

An attempt is recorded as open before anything is sent, and the description on Kaggle ends with its id: so it can
be found there after a kill or a lost answer.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from kit.config import KaggleConfig
from kit.core.errors import KitError
from kit.core.files import make_folder
from kit.core.locks import exclusive
from kit.kaggle.competition_api import Limits, RemoteSubmission
from kit.kaggle.errors import Refused
from kit.submission.folders import FAILED, OPEN, Attempt, Submission, read_submissions, record_attempt, tidy
from kit.submission.preview import mark

NOT_ARRIVED = "the server does not have it"
DOUBTFUL_SECONDS = 600.0  # an attempt that failed so lately may still arrive: it is looked for once more
_GROWTH, _LONGEST_PAUSE_SECONDS = 1.5, 30.0
log = logging.getLogger("kit")


@runtime_checkable
class SubmissionApi(Protocol):
    """The requests to Kaggle that an upload needs; `kit.kaggle.competition_api.Kaggle` makes them."""

    def limits(self, slug: str) -> Limits:
        """How many submissions were made and are left."""

    def submit(self, slug: str, path: Path, text: str) -> int:
        """Upload a file with a description; its ref.

        Raises Refused if the server did not take it, Unanswered if that is unknown.
        """

    def submissions(self, slug: str) -> Sequence[RemoteSubmission]:
        """All submissions of the team to a competition."""


@dataclass(frozen=True)
class Clock:
    """The time in Unix seconds, and a function that waits some seconds."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


def uploading(workspace: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the workspace's uploads for this process. Raises KitError if another process holds them."""
    folder = make_folder(workspace / "submissions")
    return exclusive(folder / ".upload.lock", f"one `invoke submit` at a time in {folder}")


def settle(
    kaggle: SubmissionApi, submission: Submission, attempt: Attempt, knobs: KaggleConfig, clock: Clock
) -> Attempt:
    """Find out whether an attempt without a ref arrived, and record it: under its ref, or as failed.

    A request may be under way for ``deadline_seconds`` + ``settle_seconds``: so long an open attempt is looked for
    after its start, and a failed one from now on. Raises KitError if the server's list cannot be read; the attempt
    then stays as it was.

    Args:
        kaggle: Reads the server's list.
        submission: The submission of the attempt.
        attempt: An attempt that is open or has failed.
        knobs: The section kaggle.
        clock: The time, and how to wait.

    Returns:
        The attempt as recorded.
    """
    window = knobs.deadline_seconds + knobs.settle_seconds
    left = window - _age_seconds(attempt, clock) if attempt.status == OPEN else window
    deadline = clock.now() + max(0.0, left)
    for pause in pauses(knobs.score_pause_seconds):
        attempt = poll(kaggle, submission, attempt)
        left = deadline - clock.now()
        if attempt.ref is not None:
            break
        if left <= 0:
            return record(submission, replace(attempt, status=FAILED, reason=NOT_ARRIVED))
        clock.sleep(min(pause, left))
    return attempt


def is_doubtful(attempt: Attempt, clock: Clock) -> bool:
    """Whether an attempt failed because the server did not have it, so lately that it may still arrive."""
    is_missing = attempt.status == FAILED and attempt.reason == NOT_ARRIVED
    return is_missing and _age_seconds(attempt, clock) < DOUBTFUL_SECONDS


def _age_seconds(attempt: Attempt, clock: Clock) -> float:
    """How long ago an attempt began; 0 if the clock was set back."""
    return max(0.0, clock.now() - datetime.datetime.fromisoformat(attempt.at).timestamp())


def refresh_scores(kaggle: SubmissionApi, folder: Path) -> int:
    """Update every attempt in a folder of submissions from the server's lists; how many changed.

    Never records that an attempt failed: another process may be sending it. A failed attempt that the server has
    is corrected. If Kaggle refuses a competition's list, it is logged and the others are updated; raises Refused
    if no list could be read.
    """
    tidy(folder)
    attempts = [(submission, attempt) for submission in read_submissions(folder) for attempt in submission.attempts]
    lists: dict[str, Sequence[RemoteSubmission]] = {}
    refused: dict[str, Refused] = {}
    for slug in sorted({attempt.competition for _, attempt in attempts}):
        try:
            lists[slug] = kaggle.submissions(slug)
        except Refused as error:
            refused[slug] = error
    if refused and not lists:
        raise next(iter(refused.values()))
    for slug, refusal in refused.items():
        log.warning("the scores of %s could not be read (%s); %s", slug, refusal.found, refusal.do)
    changed = 0
    for submission, attempt in attempts:
        current = as_listed(submission, attempt, lists.get(attempt.competition, ()))
        if current != attempt:
            record(submission, current)
            changed += 1
    return changed


def as_listed(submission: Submission, attempt: Attempt, listed: Sequence[RemoteSubmission]) -> Attempt:
    """The attempt with the server's ref, status and score; unchanged if the list does not have it.

    An attempt is found by its ref, one without a ref by the mark in its description.
    """
    text = mark(submission, attempt.id)
    for remote in listed:
        if remote.ref == attempt.ref or (attempt.ref is None and text in remote.description):
            return replace(
                attempt,
                ref=remote.ref,
                status=remote.status,
                public_score=remote.public_score,
                reason=remote.reason,
            )
    return attempt


def pauses(first: float) -> Iterator[float]:
    """Seconds between two polls: each pause is 1.5 times the last one, up to half a minute (or ``first``)."""
    pause, longest = first, max(first, _LONGEST_PAUSE_SECONDS)
    while True:
        yield pause
        pause = min(pause * _GROWTH, longest)


def poll(kaggle: SubmissionApi, submission: Submission, attempt: Attempt) -> Attempt:
    """The attempt as the server lists it now, recorded if it changed."""
    current = as_listed(submission, attempt, kaggle.submissions(attempt.competition))
    return attempt if current == attempt else record(submission, current)


def record(submission: Submission, attempt: Attempt) -> Attempt:
    """Write an attempt to its manifest; the same attempt. Raises KitError with its status if the disk refuses."""
    try:
        record_attempt(submission, attempt)
    except KitError as error:
        known = f"ref {attempt.ref}, {status_text(attempt)}" if attempt.ref is not None else attempt.status
        raise KitError(error.expected, f"{error.found}; known so far: {known}", error.do) from error
    return attempt


def status_text(attempt: Attempt) -> str:
    """The status of an attempt, or its public score."""
    return attempt.status if attempt.public_score is None else f"public score {attempt.public_score:.3f}"
