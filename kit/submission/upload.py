"""Upload a submission to Kaggle exactly once, even after a kill or a lost answer.

An attempt with an id of its own is recorded before anything is sent, and its description on Kaggle ends with the
id. An attempt without an answer is first looked for in Kaggle's list, and sent again only if it is not there.
Each state is on disk before the next step begins, so that the same command continues after a kill.
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
from kit.submission.attempts import (
    NOT_ARRIVED,
    Clock,
    SubmissionApi,
    is_doubtful,
    pauses,
    poll,
    record,
    settle,
    status_text,
)
from kit.submission.folders import (
    COMPLETE,
    ERROR,
    FAILED,
    FINAL,
    OPEN,
    PENDING,
    Attempt,
    Submission,
    read_submissions,
    record_attempt,
    tidy,
)
from kit.submission.preview import Outgoing, expected_score_text, local_score_text, require_unchanged

log = logging.getLogger("kit")


@dataclass(frozen=True)
class UploadPlan:
    """The next step: send the submission, wait for an attempt that Kaggle has, or only show its result."""

    step: Literal["send", "wait", "done"]
    outgoing: Outgoing
    again: bool
    limits: Limits | None = None
    attempt: Attempt | None = None


def prepare(
    kaggle: SubmissionApi, outgoing: Outgoing, again: bool, knobs: KaggleConfig, clock: Clock
) -> UploadPlan:
    """Settle open attempts, then decide what to do. Only reads from Kaggle.

    A repeated command resumes the attempt with the same message and ``again`` until its result has been shown.

    Args:
        kaggle: Reads Kaggle's lists and limits.
        outgoing: The submission, its competition and its message.
        again: Whether bytes that were uploaded before may be uploaded once more.
        knobs: The section kaggle.
        clock: The time, and how to wait.

    Returns:
        The plan, with the limits if the step is "send", with the attempt otherwise.

    Raises:
        KitError: The bytes were uploaded before, or no submission is left today.
    """
    tidy(outgoing.submission.folder.parent)
    _settle_all(kaggle, outgoing, knobs, clock)
    arrived = [(owner, attempt) for owner, attempt in _same_bytes(outgoing) if attempt.ref is not None]
    own = [attempt for owner, attempt in arrived if owner.number == outgoing.submission.number]
    repeated = [attempt for attempt in own if (attempt.message, attempt.again) == (outgoing.message, again)]
    if repeated and (repeated[-1].status == PENDING or not repeated[-1].told):
        return UploadPlan("wait", outgoing, again, attempt=repeated[-1])
    if repeated and not again:
        return UploadPlan("done", outgoing, again, attempt=repeated[-1])
    if arrived and not again:
        submission, attempt = arrived[-1]
        raise KitError(
            "bytes that were not uploaded before",
            f"submission {submission.number:04d} has the same and was uploaded as ref {attempt.ref} "
            f"({status_text(attempt)})",
            "--again uploads them once more; `invoke predict` files a new submission",
        )
    limits = kaggle.limits(outgoing.competition)
    _require_limit(limits, clock.now())
    return UploadPlan("send", outgoing, again, limits)


def send(
    kaggle: SubmissionApi, plan: UploadPlan, knobs: KaggleConfig, new_id: Callable[[], str], clock: Clock
) -> Attempt:
    """Record an attempt, upload once, record the result.

    Args:
        kaggle: Uploads the file.
        plan: A plan with the step "send".
        knobs: The section kaggle.
        new_id: Makes an id that no attempt had before.
        clock: The time, and how to wait.

    Returns:
        The attempt as recorded; Kaggle has it.

    Raises:
        KitError: The CSV was changed, Kaggle does not have the submission, or that is unknown.
    """
    outgoing = plan.outgoing
    require_unchanged(outgoing.submission)  # the user may have taken hours to confirm
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
        ref = kaggle.submit(outgoing.competition, outgoing.submission.csv, outgoing.text(attempt.id))
    except Refused as error:
        record(submission, replace(attempt, status=FAILED, reason=error.found))
        raise
    except Unanswered as error:
        return _settle_unanswered(kaggle, submission, attempt, error, knobs, clock)
    return record(submission, replace(attempt, ref=ref, status=PENDING))


def wait(kaggle: SubmissionApi, plan: UploadPlan, attempt: Attempt, knobs: KaggleConfig, clock: Clock) -> Attempt:
    """Poll the score with growing pauses and record each change; it may still be pending at the deadline.

    Args:
        kaggle: Reads Kaggle's list; a failed read is logged and repeated.
        plan: The plan of the upload.
        attempt: The attempt that Kaggle has.
        knobs: The section kaggle; ``score_wait_seconds`` is the deadline.
        clock: The time, and how to wait.

    Returns:
        The attempt as recorded.
    """
    submission = plan.outgoing.submission
    deadline = clock.now() + knobs.score_wait_seconds
    for pause in pauses(knobs.score_pause_seconds):
        try:
            attempt = poll(kaggle, submission, attempt)
        except (Refused, Unanswered) as error:
            log.warning("the score could not be read (%s)", error.found)
        if attempt.status not in (OPEN, PENDING) or clock.now() + pause > deadline:
            break
        clock.sleep(pause)
    return attempt


def show_outcome(outgoing: Outgoing, attempt: Attempt, show: Callable[[str], object]) -> None:
    """Show an attempt's `outcome` and record that its final status was shown. Raises the KitError of `outcome`."""
    try:
        show("\n".join(outcome(outgoing, attempt)))
    except KitError:
        _record_shown(outgoing, attempt)
        raise
    _record_shown(outgoing, attempt)


def left_today(limits: Limits) -> int | None:
    """Submissions left; None if unknown: all numbers are 0 if the user has no team yet."""
    return None if limits.today == limits.total == limits.allowed_now == 0 else limits.allowed_now


def limit_text(limits: Limits | None) -> str:
    """Today's limit as text, for the preview; None is unknown."""
    left = None if limits is None else left_today(limits)
    return (
        "unknown (no submission yet)" if limits is None or left is None else f"{left} (made today: {limits.today})"
    )


def outcome(outgoing: Outgoing, attempt: Attempt) -> list[str]:
    """The public score beside the local one, or the next step. Raises KitError if Kaggle could not score it."""
    submission = outgoing.submission
    name = f"submission {submission.number:04d}, ref {attempt.ref}"
    if attempt.status == ERROR:
        raise KitError(
            f"{name} to be scored",
            attempt.reason or "an error without a reason",
            "check the file with `invoke validate`, and against the rules on the competition's page",
        )
    if attempt.status != COMPLETE:
        return [f"{name}: uploaded, its score is pending; `invoke submissions --refresh` updates it"]
    if attempt.public_score is None:
        return [f"{name}: complete, without a public score"]
    expected = submission.origin.expected
    inside = expected and expected["low"] <= attempt.public_score <= expected["high"]
    verdict = (" (inside)" if inside else " (outside)") if expected else ""
    return [
        f"{name}: public score {attempt.public_score:.3f}",
        f"local score {local_score_text(submission)}; expected {expected_score_text(submission)}{verdict}",
    ]


def _record_shown(outgoing: Outgoing, attempt: Attempt) -> None:
    if attempt.status in FINAL and not attempt.told:  # pending is not final
        record(outgoing.submission, replace(attempt, told=True))


def _settle_all(kaggle: SubmissionApi, outgoing: Outgoing, knobs: KaggleConfig, clock: Clock) -> None:
    """Settle the attempts with these bytes that have no ref."""
    for submission, attempt in _same_bytes(outgoing):
        if attempt.status == OPEN or is_doubtful(attempt, clock):
            settle(kaggle, submission, attempt, knobs, clock)
        elif attempt.ref is None:  # failed before, and perhaps listed by now
            poll(kaggle, submission, attempt)


def _settle_unanswered(
    kaggle: SubmissionApi,
    submission: Submission,
    attempt: Attempt,
    lost: Unanswered,
    knobs: KaggleConfig,
    clock: Clock,
) -> Attempt:
    """Settle an attempt whose answer was lost. Raises KitError if it did not arrive or that is unknown."""
    log.warning("the upload's answer was lost (%s); looking for it in the server's list", lost.found)
    try:
        settled = settle(kaggle, submission, attempt, knobs, clock)
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
        do = (
            "the competition takes no more"
            if limits.limited_by_total
            else f"the next day begins in {hours:.1f} hours, at 00:00 UTC"
        )
        raise KitError(
            "a submission left today", f"none: {limits.today} were made today, {limits.total} in all", do
        )


def _same_bytes(outgoing: Outgoing) -> list[tuple[Submission, Attempt]]:
    """Every attempt to upload these bytes to this competition, those of other submissions included."""
    return [
        (submission, attempt)
        for submission in read_submissions(outgoing.submission.folder.parent)
        for attempt in submission.attempts
        if attempt.csv_sha256 == outgoing.submission.csv_sha256 and attempt.competition == outgoing.competition
    ]


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")
