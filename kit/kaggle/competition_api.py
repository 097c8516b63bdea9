"""A competition on Kaggle: its files, its limits, submissions and scores, as plain values.

Every method raises KitError with the server's reason. A read is tried again; a submission is sent once.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kit.config import KaggleConfig
from kit.core.errors import KitError
from kit.core.progress import Track, silent
from kit.kaggle.client import Connection, log_in
from kit.kaggle.errors import Refused, Unanswered
from kit.kaggle.timeouts import Work, wait_while_growing
from kit.kaggle.zip_archive import Corrupt

T = TypeVar("T")
_PAGE_SIZE = 200  # as many as the server likes to give: it may give fewer
_LENGTH = "content-length"
_MIB = 1 << 20


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
    status: str
    public_score: float | None
    reason: str


@dataclass(frozen=True)
class Limits:
    """How many submissions the team made and may still make now."""

    today: int
    total: int
    allowed_now: int
    limited_by_total: bool


def connect(settings: KaggleConfig) -> Kaggle:
    """Find credentials and show them to Kaggle. Raises KitError where there are none or they are refused."""
    return Kaggle(log_in(settings))


class Kaggle:
    """A connection; ``connect`` makes one."""

    def __init__(self, connection: Connection) -> None:
        self._client, self._headers, self._guard = connection.client, connection.headers, connection.guard

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
        if not made.ref and made.message != self._client.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            said = self._guard.credentials.hide(made.message or "nothing")
            raise Unanswered(
                action,
                f"Kaggle names no submission (ref 0) and says: {said}",
                "the same command looks for it on the server before it sends anything",
            )
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

    def _watch(self, work: Work[None], path: Path, track: Track) -> None:
        """Wait for a download as long as it brings bytes, with a step of the bar for every MiB."""
        stall = self._guard.settings.stall_seconds
        wait_while_growing(work, lambda: _size(path), stall, lambda: _LENGTH in self._headers)
        mib = math.ceil(int(self._headers.get(_LENGTH, 0)) / _MIB)
        for number in track(range(mib), "download", mib):
            least_bytes = (number + 1) * _MIB
            wait_while_growing(work, lambda: _size(path), stall, lambda: _size(path) >= least_bytes)  # noqa: B023
        wait_while_growing(work, lambda: _size(path), stall)
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _submission(one: Any) -> RemoteSubmission:
    return RemoteSubmission(
        ref=one.ref,
        submitted_at=_utc(one.date) or datetime.datetime.min.replace(tzinfo=datetime.UTC),
        description=one.description or "",
        status=one.status.name.lower(),
        public_score=_score(one.public_score),
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
