"""What became of the attempts to upload: each is looked for in the server's list, and what is found is recorded.

An attempt is recorded as open before anything is sent, and the text that Kaggle shows ends with its id: so it
can be found there whatever happened to the process, the line or the answer.
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
DOUBTFUL_SECONDS = 600.0  # an attempt so young that was given up may still arrive: it is looked for once more
_GROWTH, _LONGEST_PAUSE_SECONDS = 1.5, 30.0
log = logging.getLogger("kit")


@runtime_checkable
class Wire(Protocol):
    """What is asked of Kaggle here; `kit.kaggle.competition_api.connect` gives the real one."""

    def limits(self, slug: str) -> Limits:
        """How many submissions are left."""

    def submit(self, slug: str, path: Path, text: str) -> int:
        """Upload a file; its ref.

        Raises Refused where the server certainly did not take it, Unanswered where nobody knows.
        """

    def submissions(self, slug: str) -> Sequence[RemoteSubmission]:
        """The server's whole list."""


@dataclass(frozen=True)
class Clock:
    """Unix seconds, and how to let some pass."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


def uploading(workspace: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the workspace's uploads for this process. Raises KitError if another process holds them."""
    folder = make_folder(workspace / "submissions")
    return exclusive(folder / ".upload.lock", f"one `invoke submit` at a time in {folder}")


def settle(wire: Wire, submission: Submission, attempt: Attempt, knobs: KaggleConfig, clock: Clock) -> Attempt:
    """Find out what became of an attempt without a ref and record it: the server has it, or it failed.

    An open one is looked for until ``deadline_seconds`` + ``settle_seconds`` after its start, since a request that
    was given up at the deadline may still be under way; one that was given up before, as long again from now.
    Raises KitError where the server's list cannot be read: the attempt then stays as it was.
    """
    window = knobs.deadline_seconds + knobs.settle_seconds
    left = window - age_seconds(attempt, clock) if attempt.status == OPEN else window
    deadline = clock.now() + max(0.0, left)
    for pause in pauses(knobs.score_pause_seconds):
        attempt = look(wire, submission, attempt)
        left = deadline - clock.now()
        if attempt.ref is not None:
            break
        if left <= 0:
            return recorded(submission, replace(attempt, status=FAILED, reason=NOT_ARRIVED))
        clock.sleep(min(pause, left))
    return attempt


def is_doubtful(attempt: Attempt, clock: Clock) -> bool:
    """Whether an attempt was given up, and so lately that its request may still arrive."""
    given_up = attempt.status == FAILED and attempt.reason == NOT_ARRIVED
    return given_up and age_seconds(attempt, clock) < DOUBTFUL_SECONDS


def age_seconds(attempt: Attempt, clock: Clock) -> float:
    """How long ago an attempt began; 0 where the clock was set back."""
    return max(0.0, clock.now() - datetime.datetime.fromisoformat(attempt.at).timestamp())


def refresh(wire: Wire, folder: Path) -> int:
    """Bring every attempt up to the server's list; how many changed.

    Never decides that an attempt failed: another process may just be sending it. One that was given up and
    turns up late is taken back. A competition whose list Kaggle refuses is warned of, and the others go on;
    raises the refusal where none could be read.
    """
    tidy(folder)
    attempts = [(one, attempt) for one in read_submissions(folder) for attempt in one.attempts]
    lists: dict[str, Sequence[RemoteSubmission]] = {}
    refused: dict[str, Refused] = {}
    for slug in sorted({attempt.competition for _, attempt in attempts}):
        try:
            lists[slug] = wire.submissions(slug)
        except Refused as error:
            refused[slug] = error
    if refused and not lists:
        raise next(iter(refused.values()))
    for slug, refusal in refused.items():
        log.warning("the scores of %s could not be asked for (%s); %s", slug, refusal.found, refusal.do)
    news = [(one, attempt, seen(one, attempt, lists.get(attempt.competition, ()))) for one, attempt in attempts]
    for submission, attempt, now in news:
        if now != attempt:
            recorded(submission, now)
    return sum(now != attempt for _, attempt, now in news)


def seen(submission: Submission, attempt: Attempt, listed: Sequence[RemoteSubmission]) -> Attempt:
    """The attempt as the server's list has it, by ref or by the mark in the text; as it was if it is not there."""
    words = mark(submission, attempt.id)
    for remote in listed:
        if remote.ref == attempt.ref or (attempt.ref is None and words in remote.description):
            return replace(
                attempt,
                ref=remote.ref,
                status=remote.status,
                public_score=remote.public_score,
                reason=remote.reason,
            )
    return attempt


def pauses(first: float) -> Iterator[float]:
    """Seconds between two looks: each half as long again as the one before, up to half a minute."""
    pause, longest = first, max(first, _LONGEST_PAUSE_SECONDS)
    while True:
        yield pause
        pause = min(pause * _GROWTH, longest)


def look(wire: Wire, submission: Submission, attempt: Attempt) -> Attempt:
    """The attempt as the server has it now, recorded if that is news."""
    now = seen(submission, attempt, wire.submissions(attempt.competition))
    return attempt if now == attempt else recorded(submission, now)


def recorded(submission: Submission, attempt: Attempt) -> Attempt:
    """Write an attempt's state. Raises KitError where the disk refuses, with what is known by then."""
    try:
        record_attempt(submission, attempt)
    except KitError as error:
        known = f"ref {attempt.ref}, {ending(attempt)}" if attempt.ref is not None else attempt.status
        raise KitError(error.expected, f"{error.found}; known so far: {known}", error.do) from error
    return attempt


def ending(attempt: Attempt) -> str:
    """How an attempt stands, in two or three words."""
    return attempt.status if attempt.public_score is None else f"public score {attempt.public_score:.3f}"
