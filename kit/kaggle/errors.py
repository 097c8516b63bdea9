"""What Kaggle's client raises, in the kit's words: the server's reason and the next step.

The one question that matters after a failed upload is whether anything happened; the type of the error answers it.
"""

from __future__ import annotations

import datetime
import errno
import re
from dataclasses import dataclass
from typing import Any

from kit.core.errors import KitError, reason
from kit.kaggle.credentials import HOW_TO_GET, Credentials

_BUSY, _SERVER_ERRORS = 429, 500
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
_SHOWN_LETTERS = 300


class Refused(KitError):
    """Kaggle's answer is no: nothing was changed there."""


class Unanswered(KitError):
    """No answer to rely on: what was asked may have been done or not."""


@dataclass(frozen=True)
class ServerAnswer:
    """An error as the server put it, whole: what is shown of it is hidden first and cut after."""

    status: int
    reason: str
    retry_after_seconds: float = 0.0


def answer_of(error: BaseException) -> ServerAnswer | None:
    """What the server answered; None where it did not."""
    response = getattr(error, "response", None)
    if response is None and isinstance(error, ValueError):  # the client's own words for an answer
        response = getattr(error.__context__, "response", None)
    if response is None:
        return None
    content = _json(response)
    nested = content.get("error")
    inner = nested if isinstance(nested, dict) else content
    status = int(response.status_code)
    if status < 400 and isinstance(inner.get("code"), int):
        status = inner["code"]  # an error under the status 200
    reason = inner.get("message") or _plain(response.text) or str(response.reason or "")
    return ServerAnswer(status, str(reason).strip(), _seconds(response.headers.get("Retry-After")))


def is_passing(error: BaseException) -> bool:
    """Whether the same read may succeed a little later: busy, broken down, not reached, cut off."""
    answer = answer_of(error)
    if answer is None:
        return isinstance(error, OSError) and error.errno not in _OURS  # requests' errors are OSErrors too
    return answer.status == _BUSY or answer.status >= _SERVER_ERRORS


def kit_error(error: BaseException, action: str, slug: str, credentials: Credentials) -> KitError:
    """The error for the user; ``action`` begins with "to". No secret is in its text."""
    if isinstance(error, KitError):
        return error
    if isinstance(error, SystemExit):  # the client found no credentials that the server takes
        return _answered(ServerAnswer(401, "unknown or expired"), action, slug, credentials)
    answer = answer_of(error)
    return (
        _without_answer(error, action, credentials)
        if answer is None
        else _answered(answer, action, slug, credentials)
    )


def _answered(answer: ServerAnswer, action: str, slug: str, credentials: Credentials) -> KitError:
    reason = credentials.hide(answer.reason)[:_SHOWN_LETTERS].strip()  # a cut secret would not be known again
    found = f"Kaggle answered {answer.status}: {reason}"
    expected = action
    if answer.status >= _SERVER_ERRORS:
        return Unanswered(expected, found, "it is Kaggle's trouble, not yours: the same command later")
    if answer.status == 401:
        expected, found = "credentials that Kaggle accepts", f"those of {credentials.source}; {found}"
        do = HOW_TO_GET
    elif answer.status in (403, 404) and not slug:
        do = "check the name, and that this account may do it"
    elif answer.status == 403:
        expected += ": the competition is joined, its rules accepted, its name right"
        do = (
            f"join and accept the rules at https://www.kaggle.com/competitions/{slug}/rules, then the same "
            "command; or correct the name (`invoke download --competition SLUG`)"
        )
    elif answer.status == 404:
        expected += ": a competition of that name"
        do = (
            "take SLUG from its address, https://www.kaggle.com/competitions/SLUG, and give it to "
            "`invoke download --competition SLUG`"
        )
    elif answer.status == _BUSY:
        wait = f"{answer.retry_after_seconds:.0f} s" if answer.retry_after_seconds else "a few minutes"
        do = f"wait {wait} (these were too many requests), then the same command"
    else:
        do = f"do what Kaggle says; a daily limit counts anew at 00:00 UTC, in {_hours_left():.1f} hours"
    return Refused(expected, found, do)


def _without_answer(error: BaseException, action: str, credentials: Credentials) -> KitError:
    if isinstance(error, TimeoutError):
        found = str(error) or "no answer in time"
    elif isinstance(error, OSError) and error.errno in _OURS:
        return Refused(
            action, f"{error.strerror}: {error.filename or 'the disk'}", "make room or get the right to write"
        )
    elif isinstance(error, OSError):
        found = f"no answer: {_innermost(error)}"
    else:
        found = f"the client failed: {type(error).__name__}: {error}"
    return Unanswered(
        action,
        credentials.hide(found)[:_SHOWN_LETTERS],
        "check the network and https://status.kaggle.com, then the same command",
    )


def _innermost(error: BaseException) -> str:
    """The reason at the bottom of a chain of errors: "Connection refused" and the like."""
    below: BaseException | None = error
    while below is not None:
        error, below = below, below.__cause__ or below.__context__
    return reason(error)


def _json(response: Any) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _plain(page: str) -> str:
    """The text of an error page, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def _seconds(text: str | None) -> float:
    """A Retry-After in seconds or as a date; 0 where there is none or it is neither."""
    if text is None:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = datetime.datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=datetime.UTC)
    except ValueError:
        return 0.0
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())


def _hours_left() -> float:
    now = datetime.datetime.now(datetime.UTC)
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds() / 3600
