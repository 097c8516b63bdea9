"""A submission goes to Kaggle exactly once, whatever happens on the way.

Before anything is sent, an attempt with an id of its own is recorded; the text that Kaggle shows ends with it.
An attempt whose end nobody saw is first looked for in the server's list, and only then made anew. Every state
is on disk before the next step begins: a kill at any moment leaves something that the same command goes on from.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from kit.config import KaggleConfig
from kit.core.errors import KitError
from kit.kaggle.competition_api import Limits
from kit.kaggle.errors import Refused, Unanswered
from kit.submission.attempts import NOT_ARRIVED, Clock, Wire, ending, is_doubtful, look, pauses, recorded, settle
from kit.submission.folders import (
    COMPLETE,
    ENDS,
    ERROR,
    FAILED,
    OPEN,
    PENDING,
    Attempt,
    Submission,
    read_submissions,
    record_attempt,
    tidy,
)
from kit.submission.preview import Outgoing, expected_score, local_score, require_unchanged

log = logging.getLogger("kit")


@dataclass(frozen=True)
class Plan:
    """What is to be done: send anew, or wait for (or just show) an attempt that the server already has."""

    step: Literal["send", "wait", "done"]
    outgoing: Outgoing
    again: bool
    limits: Limits | None = None
    attempt: Attempt | None = None


def prepare(wire: Wire, outgoing: Outgoing, again: bool, knobs: KaggleConfig, clock: Clock) -> Plan:
    """Settle what is open, then decide. Only reads from the server. Raises KitError where nothing may be sent.

    A call with the message (and ``--again``) of an attempt that is not finished, or whose end no call has told, is
    the same call once more: it goes on with that attempt.
    """
    tidy(outgoing.submission.folder.parent)
    _settle_all(wire, outgoing, knobs, clock)
    arrived = [(one, attempt) for one, attempt in _same_bytes(outgoing) if attempt.ref is not None]
    mine = [attempt for one, attempt in arrived if one.number == outgoing.submission.number]
    repeated = [attempt for attempt in mine if (attempt.message, attempt.again) == (outgoing.message, again)]
    if repeated and (repeated[-1].status == PENDING or not repeated[-1].told):
        return Plan("wait", outgoing, again, attempt=repeated[-1])
    if repeated and not again:
        return Plan("done", outgoing, again, attempt=repeated[-1])
    if arrived and not again:
        submission, attempt = arrived[-1]
        raise KitError(
            "bytes that were not uploaded before",
            f"submission {submission.number:04d} has the same and was uploaded as ref {attempt.ref} "
            f"({ending(attempt)})",
            "--again uploads them once more; `invoke predict` files other answers",
        )
    limits = wire.limits(outgoing.competition)
    _require_limit(limits, clock.now())
    return Plan("send", outgoing, again, limits)


def send(wire: Wire, plan: Plan, knobs: KaggleConfig, new_id: Callable[[], str], clock: Clock) -> Attempt:
    """Record an attempt, upload once, record what came of it. Raises KitError where the server has nothing."""
    outgoing = plan.outgoing
    require_unchanged(outgoing.submission)  # the question may have stood for hours
    attempt = Attempt(
        id=new_id(),
        competition=outgoing.competition,
        message=outgoing.message,
        again=plan.again,
        csv_sha256=outgoing.submission.csv_sha256,
        at=_iso(clock.now()),
    )
    submission = record_attempt(outgoing.submission, attempt)
    try:
        ref = wire.submit(outgoing.competition, outgoing.submission.csv, outgoing.text(attempt.id))
    except Refused as error:
        recorded(submission, replace(attempt, status=FAILED, reason=error.found))
        raise
    except Unanswered as error:
        return _found_after_loss(wire, submission, attempt, error, knobs, clock)
    return recorded(submission, replace(attempt, ref=ref, status=PENDING))


def wait(wire: Wire, plan: Plan, attempt: Attempt, knobs: KaggleConfig, clock: Clock) -> Attempt:
    """Look for the score with growing pauses and record each news; pending at the deadline is no failure.

    A look that fails is said and repeated: the upload itself is safe.
    """
    submission = plan.outgoing.submission
    deadline = clock.now() + knobs.score_wait_seconds
    for pause in pauses(knobs.score_pause_seconds):
        try:
            attempt = look(wire, submission, attempt)
        except (Refused, Unanswered) as error:
            log.warning("the score could not be asked for (%s)", error.found)
        if attempt.status not in (OPEN, PENDING) or clock.now() + pause > deadline:
            break
        clock.sleep(pause)
    return attempt


def tell(outgoing: Outgoing, attempt: Attempt, say: Callable[[str], object]) -> None:
    """Say how an attempt stands (see `outcome`), and record that its end was told. Raises KitError as that does."""
    try:
        say("\n".join(outcome(outgoing, attempt)))
    except KitError:
        _recorded_as_told(outgoing, attempt)
        raise
    _recorded_as_told(outgoing, attempt)


def left_today(limits: Limits) -> int | None:
    """Submissions left; None where that is not known: all zero means that the user is on no team yet."""
    return None if limits.today == limits.total == limits.allowed_now == 0 else limits.allowed_now


def limit_text(limits: Limits | None) -> str:
    """What is known of today's limit, for the preview."""
    left = None if limits is None else left_today(limits)
    return (
        "unknown (no submission yet)" if limits is None or left is None else f"{left} (made today: {limits.today})"
    )


def outcome(outgoing: Outgoing, attempt: Attempt) -> list[str]:
    """Local against public, or what to do next. Raises KitError where the server could not score it."""
    submission = outgoing.submission
    name = f"submission {submission.number:04d}, ref {attempt.ref}"
    if attempt.status == ERROR:
        raise KitError(
            f"{name} to be scored",
            attempt.reason or "an error without a reason",
            "`invoke validate` checks the file; the competition's page says what it wants",
        )
    if attempt.status != COMPLETE:
        return [f"{name}: uploaded, its score is pending; `invoke submissions --refresh` picks it up"]
    if attempt.public_score is None:
        return [f"{name}: complete, without a public score"]
    expected = submission.origin.expected
    inside = expected and expected["low"] <= attempt.public_score <= expected["high"]
    verdict = (" (inside)" if inside else " (outside)") if expected else ""
    return [
        f"{name}: public score {attempt.public_score:.3f}",
        f"local score {local_score(submission)}; expected {expected_score(submission)}{verdict}",
    ]


def _recorded_as_told(outgoing: Outgoing, attempt: Attempt) -> None:
    if attempt.status in ENDS and not attempt.told:  # pending is no end
        recorded(outgoing.submission, replace(attempt, told=True))


def _settle_all(wire: Wire, outgoing: Outgoing, knobs: KaggleConfig, clock: Clock) -> None:
    """Settle the attempts of these bytes that the server is not known to have."""
    for submission, attempt in _same_bytes(outgoing):
        if attempt.status == OPEN or is_doubtful(attempt, clock):
            settle(wire, submission, attempt, knobs, clock)
        elif attempt.ref is None:  # given up once, and perhaps there by now
            look(wire, submission, attempt)


def _found_after_loss(
    wire: Wire, submission: Submission, attempt: Attempt, lost: Unanswered, knobs: KaggleConfig, clock: Clock
) -> Attempt:
    log.warning("the upload's answer was lost (%s); looking for it in the server's list", lost.found)
    try:
        settled = settle(wire, submission, attempt, knobs, clock)
    except KitError as error:
        raise KitError(
            lost.expected,
            f"{lost.found}; whether it arrived is not known ({error.found})",
            "the same command looks for it on the server before it sends anything",
        ) from lost
    if settled.status == FAILED:
        raise KitError(
            lost.expected,
            f"{lost.found}; {NOT_ARRIVED}",
            f"the same command sends it anew ({lost.do})",
        ) from lost
    return settled


def _require_limit(limits: Limits, now: float) -> None:
    if left_today(limits) == 0:
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        midnight = (moment + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        hours = (midnight - moment).total_seconds() / 3600
        again = (
            "the competition takes no more"
            if limits.limited_by_total
            else f"the next day begins in {hours:.1f} hours, at 00:00 UTC"
        )
        raise KitError(
            "a submission left today", f"none: {limits.today} were made today, {limits.total} in all", again
        )


def _same_bytes(outgoing: Outgoing) -> list[tuple[Submission, Attempt]]:
    """Every attempt to send these bytes to this competition, also from other folders."""
    return [
        (submission, attempt)
        for submission in read_submissions(outgoing.submission.folder.parent)
        for attempt in submission.attempts
        if attempt.csv_sha256 == outgoing.submission.csv_sha256 and attempt.competition == outgoing.competition
    ]


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
