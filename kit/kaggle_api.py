"""The wire to Kaggle: its own client, guarded where it does badly (no deadlines, no retries, prints, exits).

Every method raises KitError with the server's reason. A read is tried again; what changes something is asked once.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import io
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kit.archive import Corrupt
from kit.config import KaggleConfig
from kit.credentials import Credentials, find_credentials
from kit.deadlines import Work
from kit.errors import KitError
from kit.progress import Track, silent
from kit.refusals import Refused, answer_of, is_passing, kit_error

T = TypeVar("T")
_PAGE_SIZE = 200  # as many as the server likes to give: it may give fewer
_LENGTH = "content-length"
_MIB = 1 << 20
_GLANCE_SECONDS = 0.1
log = logging.getLogger("kit")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a competition: its path in the archive and its size when unpacked."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class RemoteSubmission:
    """A submission as Kaggle lists it. ``status`` is pending, complete or error; ``reason`` is of an error."""

    ref: int
    submitted_at: datetime.datetime
    description: str
    file_name: str
    status: str
    public_score: float | None
    private_score: float | None
    reason: str


@dataclass(frozen=True)
class Limits:
    """How many submissions the team made and may still make now."""

    today: int
    total: int
    allowed_now: int
    limited_by_total: bool


@dataclass(frozen=True)
class LeaderboardRow:
    """A team's best public score."""

    team: str
    score: float | None
    submitted_at: datetime.datetime | None


def connect(settings: KaggleConfig) -> Kaggle:
    """Find credentials and show them to Kaggle. Raises KitError where there are none or they are refused."""
    credentials = find_credentials()
    headers: dict[str, str] = {}
    guard = _Guard(settings, credentials)
    client = guard.read("to log in to Kaggle", "", lambda: _client(headers))
    return Kaggle(client, headers, guard)


class Kaggle:
    """A connection; ``connect`` makes one."""

    def __init__(self, client: Any, headers: dict[str, str], guard: _Guard) -> None:
        self._client, self._headers, self._guard = client, headers, guard

    def files(self, slug: str) -> list[RemoteFile]:
        """Every file of a competition, in the server's order."""
        found: dict[str, RemoteFile] = {}
        token = ""
        while True:
            page = self._read(f"to list the files of {slug}", slug, self._file_page(slug, token))
            new = [RemoteFile(one.name, int(one.total_bytes)) for one in page.files if one.name not in found]
            found |= {one.name: one for one in new}
            token = page.next_page_token or ""
            if not token or not new:
                return list(found.values())

    def download(self, slug: str, folder: Path, track: Track = silent) -> Path:
        """The competition's archive ``folder/SLUG.zip``, its MD5 compared where the server sends one.

        Goes on where an earlier call was cut or killed, if the archive is still the same. Raises Corrupt where
        the bytes are not those that the server has; the archive is then deleted.
        """
        path = folder / f"{slug}.zip"
        fetch = self._client.competition_download_files
        self._headers.clear()
        self._guard.read(
            f"to download {slug}",
            slug,
            lambda: fetch(slug, str(folder), quiet=True),
            lambda work: self._watch(work, path, track),
        )
        if not path.is_file():
            raise KitError(f"a zip archive of {slug}", "Kaggle sent another kind of file", f"look into {folder}")
        self._compare_md5(path)
        return path

    def limits(self, slug: str) -> Limits:
        """The submissions left. All zero where the user is on no team yet."""
        ask = self._client.competition_get_submission_limits
        found = self._read(f"to read the submission limits of {slug}", slug, lambda: ask(slug))
        return Limits(found.num_today, found.num_total, found.num_allowed_now, found.limited_by_total)

    def submit(self, slug: str, path: Path, text: str) -> int:
        """Upload a file and submit it once; its ``ref``.

        Raises Refused where surely nothing was submitted, and Unanswered where nobody knows: then only
        ``submissions`` can tell, by the text.
        """
        action = f"to submit {path.name} to {slug}"
        made = self._guard.once(action, slug, lambda: self._client.competition_submit(str(path), text, slug, True))
        if not made.ref:  # the client reports a failed upload in this way, and raises nothing
            raise Refused(
                action,
                f"the upload failed: {self._guard.credentials.hide(made.message)} (ref 0); nothing was submitted",
                "the same command tries again",
            )
        return int(made.ref)

    def submissions(self, slug: str) -> list[RemoteSubmission]:
        """All submissions of the user's team, newest first."""
        found: dict[int, RemoteSubmission] = {}
        page = 0
        while True:
            page += 1
            shown = self._read(f"to list the submissions to {slug}", slug, self._submission_page(slug, page))
            new = {one.ref: _submission(one) for one in shown or () if one and one.ref not in found}
            found |= new
            if not new:  # the client drops the token of the next page: an empty or repeated page is the end
                return sorted(found.values(), key=lambda one: (one.submitted_at, one.ref), reverse=True)

    def leaderboard(self, slug: str) -> list[LeaderboardRow]:
        """The first page of the public leaderboard, best first."""
        view = self._client.competition_leaderboard_view
        shown = self._read(f"to read the leaderboard of {slug}", slug, lambda: view(slug))
        return [
            LeaderboardRow(one.team_name, _score(one.score), _utc(one.submission_date))
            for one in shown or ()
            if one
        ]

    def _watch(self, work: Work[None], path: Path, track: Track) -> None:
        """Wait for a download as long as it brings bytes, with a step of the bar for every MiB."""
        stall = self._guard.settings.stall_seconds
        _wait_for(lambda: _LENGTH in self._headers, work, path, stall)
        mib = math.ceil(int(self._headers.get(_LENGTH, 0)) / _MIB)
        for number in track(range(mib), "download", mib):
            least_bytes = (number + 1) * _MIB
            _wait_for(lambda: _size(path) >= least_bytes, work, path, stall)  # noqa: B023 (called at once)
        _wait_for(lambda: False, work, path, stall)
        work.result()

    def _compare_md5(self, path: Path) -> None:
        sent = re.search(r"md5=([A-Za-z0-9+/]{22}==)", self._headers.get("x-goog-hash", ""))
        expected = sent[1] if sent else self._headers.get("content-md5")
        with path.open("rb") as file:
            found = base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
        if expected and found != expected:
            path.unlink()
            raise Corrupt(
                f"{path.name} with the MD5 {expected} that Kaggle sent with it",
                f"{found}: bytes were changed on the way",
                "the same command fetches it anew",
            )

    def _file_page(self, slug: str, token: str) -> Callable[[], Any]:
        return lambda: self._client.competition_list_files(slug, token or None, _PAGE_SIZE)

    def _submission_page(self, slug: str, page: int) -> Callable[[], Any]:
        return lambda: self._client.competition_submissions(slug, page_number=page, page_size=_PAGE_SIZE)

    def _read(self, action: str, slug: str, call: Callable[[], T]) -> T:
        return self._guard.read(action, slug, call)


@dataclass(frozen=True)
class _Guard:
    """Deadlines, pauses, captured output and words for what goes wrong."""

    settings: KaggleConfig
    credentials: Credentials

    def once(self, action: str, slug: str, call: Callable[[], T]) -> T:
        """The call's value, asked for a single time within the deadline."""
        try:
            with captured():
                return Work(call).result(self.settings.deadline_seconds)
        except (Exception, SystemExit) as error:
            raise kit_error(error, action, slug, self.credentials) from None

    def read(self, action: str, slug: str, call: Callable[[], T], wait: Callable[[Work[T]], T] | None = None) -> T:
        """The call's value; where Kaggle is busy or the line drops it is asked again, after growing pauses.

        ``wait`` is another way to wait for it than until the deadline; it may show a bar.
        """
        for pause in self._pauses():
            try:
                with captured(errors=wait is None):
                    work = Work(call)
                    return work.result(self.settings.deadline_seconds) if wait is None else wait(work)
            except (Exception, SystemExit) as error:
                answer = answer_of(error)
                asked = 0.0 if answer is None else answer.retry_after_seconds
                if pause is None or not is_passing(error) or asked > self.settings.longest_pause_seconds:
                    raise kit_error(error, action, slug, self.credentials) from None
                seconds = max(pause, asked)
                what = f"answered {answer.status}" if answer else "did not answer"
                log.info("Kaggle %s; trying again in %.3g s", what, seconds)
            time.sleep(seconds)
        raise AssertionError("the last pause is None, which returns or raises")

    def _pauses(self) -> Iterator[float | None]:
        for number in range(self.settings.attempts - 1):
            yield min(self.settings.pause_seconds * 2**number, self.settings.longest_pause_seconds)
        yield None


@contextlib.contextmanager
def captured(errors: bool = True) -> Iterator[None]:
    """Keep what the client prints from the user: it may show headers, and the kit says it better."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said if errors else sys.stderr):
        yield


def _client(headers: dict[str, str]) -> Any:
    """The library's client, logged in; ``headers`` takes those of its last answer (its methods drop them)."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    class Client(KaggleApi):
        """The client, with an ear for headers."""

        def get_response_processor(self) -> Callable[[Any], None]:
            """What the client calls with every answer that is no error."""

            def keep(response: Any) -> None:
                headers.clear()
                headers.update({name.lower(): value for name, value in response.headers.items()})

            return keep

    client = Client()
    client.authenticate()
    return client


def _wait_for(reached: Callable[[], bool], work: Work[Any], path: Path, stall_seconds: float) -> None:
    """Return once ``reached`` is true or the work has ended. Raises TimeoutError where the file stops growing."""
    size, since = _size(path), time.monotonic()
    while not reached() and not work.wait(_GLANCE_SECONDS):
        now = _size(path)
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            raise TimeoutError(f"no byte within {stall_seconds:g} s")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _submission(one: Any) -> RemoteSubmission:
    return RemoteSubmission(
        ref=one.ref,
        submitted_at=_utc(one.date) or datetime.datetime.min.replace(tzinfo=datetime.UTC),
        description=one.description or "",
        file_name=one.file_name or "",
        status=one.status.name.lower(),
        public_score=_score(one.public_score),
        private_score=_score(one.private_score),
        reason=one.error_description or "",
    )


def _score(text: str | None) -> float | None:
    """A score from its text; None while it is pending ("")."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    """The client's naive times are UTC."""
    return None if moment is None else moment.replace(tzinfo=datetime.UTC)
