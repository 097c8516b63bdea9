"""Errors of Kaggle's client as KitErrors, with the server's reason and the next step.

After a failed upload one thing matters: whether Kaggle received it. The type of the error says so.
"""

from __future__ import annotations

import datetime
import errno
import re
from dataclasses import dataclass
from typing import Any

from kit.core.errors import KitError, reason
from kit.kaggle.advice import FOLLOW, advice
from kit.kaggle.credentials import HOW_TO_GET, Credentials

_BUSY, _SERVER_ERRORS = 429, 500
_LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
_SHOWN_LETTERS = 300


class Refused(KitError):
    """Kaggle refused the request: nothing was changed there."""


class Unanswered(KitError):
    """Kaggle's answer is missing or unclear: the request may have been carried out or not."""


@dataclass(frozen=True)
class ServerAnswer:
    """An error response of the server. ``reason`` is its full text: redact secrets before shortening it."""

    status: int
    reason: str
    retry_after_seconds: float = 0.0


def answer_of(error: BaseException) -> ServerAnswer | None:
    """The server's error response; None if there was no response."""
    response = getattr(error, "response", None)
    if response is None and isinstance(error, ValueError):  # the client's own error for a response
        response = getattr(error.__context__, "response", None)
    if response is None:
        return None
    content = _json(response)
    nested = content.get("error")
    inner = nested if isinstance(nested, dict) else content
    status = int(response.status_code)
    if status < 400 and isinstance(inner.get("code"), int):
        status = inner["code"]  # an error with the HTTP status 200
    reason = inner.get("message") or _plain(response.text) or str(response.reason or "")
    return ServerAnswer(status, str(reason).strip(), _seconds(response.headers.get("Retry-After")))


def is_temporary(error: BaseException) -> bool:
    """Whether the same read may succeed later: Kaggle is busy, out of order or unreachable."""
    answer = answer_of(error)
    if answer is None:
        return isinstance(error, OSError) and error.errno not in _LOCAL  # requests' errors are OSErrors too
    return answer.status == _BUSY or answer.status >= _SERVER_ERRORS


def kit_error(error: BaseException, action: str, slug: str, credentials: Credentials) -> KitError:
    """The error for the user, without secrets; ``action`` begins with "to", ``slug`` may be empty."""
    if isinstance(error, KitError):
        return error
    if isinstance(error, SystemExit):  # the client has no credentials that the server accepts
        return unaccepted(credentials)
    answer = answer_of(error)
    return (
        _without_answer(error, action, credentials)
        if answer is None
        else _answered(answer, action, slug, credentials)
    )


def unaccepted(credentials: Credentials) -> KitError:
    """The error for credentials that Kaggle does not know, or no longer."""
    return _answered(ServerAnswer(401, "unknown or expired"), "", "", credentials)


def _answered(answer: ServerAnswer, action: str, slug: str, credentials: Credentials) -> KitError:
    reason = credentials.hide(answer.reason)[:_SHOWN_LETTERS].strip()  # a shortened secret would not be recognised
    found = f"Kaggle answered {answer.status}: {reason}"
    expected = action
    if answer.status >= _SERVER_ERRORS:
        return Unanswered(expected, found, "the fault is Kaggle's; run the same command later")
    if answer.status == 401:
        expected, found = "credentials that Kaggle accepts", f"{credentials.source}; {found}"
        do = HOW_TO_GET
    elif answer.status not in (404, _BUSY) and (known := advice(answer.reason, slug)):
        do = known
    elif answer.status in (403, 404) and not slug:
        do = "check the name and the permissions of this account"
    elif answer.status == 403:
        expected += ", a competition whose rules this account has accepted"
        do = (
            f"join and accept the rules at https://www.kaggle.com/competitions/{slug}/rules, then repeat the "
            "command; or correct the name (`invoke download --competition SLUG`)"
        )
    elif answer.status == 404:
        expected += ", a competition of that name"
        do = (
            "copy SLUG from its address, https://www.kaggle.com/competitions/SLUG, and pass it to "
            "`invoke download --competition SLUG`"
        )
    elif answer.status == _BUSY:
        wait = f"{answer.retry_after_seconds:.0f} s" if answer.retry_after_seconds else "a few minutes"
        do = f"wait {wait} (there were too many requests), then repeat the command"
    else:
        do = FOLLOW
    return Refused(expected, found, do)


def _without_answer(error: BaseException, action: str, credentials: Credentials) -> KitError:
    do = "check the network and https://status.kaggle.com, then repeat the command"
    if isinstance(error, TimeoutError):
        found = str(error) or "no answer in time"
    elif isinstance(error, OSError) and error.errno in _LOCAL:
        return Refused(
            action, f"{error.strerror}: {error.filename or 'the disk'}", "make room, or get permission to write"
        )
    elif isinstance(error, OSError):
        found = f"no answer: {_innermost(error)}"
        if "CERTIFICATE_VERIFY_FAILED" in found:
            do = "check this machine's clock; a proxy's own certificate goes into the variable REQUESTS_CA_BUNDLE"
    else:
        found = f"the client failed: {type(error).__name__}: {error}"
        do = "repeat the command; if it fails again, `pip install -U kaggle` may help"
    return Unanswered(action, credentials.hide(found)[:_SHOWN_LETTERS], do)


def _innermost(error: BaseException) -> str:
    """The reason at the bottom of a chain of errors: "Connection refused" and the like."""
    cause: BaseException | None = error
    while cause is not None:
        error, cause = cause, cause.__cause__ or cause.__context__
    return reason(error)


def _json(response: Any) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _plain(page: str) -> str:
    """The text of an HTML error page in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def _seconds(text: str | None) -> float:
    """The seconds of a Retry-After header, which holds seconds or a date; 0 if it is missing or neither."""
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
