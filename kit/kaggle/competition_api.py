"""A competition on Kaggle: its files, its limits, submissions and scores, as plain values.

Every method raises KitError with the server's reason. A read is retried; a submission is sent once.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
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
from kit.schemas.file_names import COMPETITION_FILES

T = TypeVar("T")
_PAGE_SIZE = 200  # the server may return fewer
_LENGTH = "content-length"
_MIB = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a competition: its path in the archive and its unpacked size."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class RemoteSubmission:
    """A submission as Kaggle lists it. ``status`` is pending, complete or error; ``reason`` explains an error."""

    ref: int
    submitted_at: datetime.datetime
    description: str
    status: str
    public_score: float | None
    reason: str


@dataclass(frozen=True)
class Limits:
    """How many submissions the team made today and in total, and how many it may still make now."""

    today: int
    total: int
    allowed_now: int
    limited_by_total: bool


def connect(settings: KaggleConfig) -> Kaggle:
    """Log in to Kaggle. Raises KitError if there are no credentials or Kaggle refuses them."""
    return Kaggle(log_in(settings))


class Kaggle:
    """A connection to Kaggle's competitions, made by ``connect``."""

    def __init__(self, connection: Connection) -> None:
        self._client, self._headers, self._guard = connection.client, connection.headers, connection.guard

    def files(self, slug: str) -> list[RemoteFile]:
        """Every file of a competition, in the server's order."""
        files: dict[str, RemoteFile] = {}
        token = ""
        while True:
            page = self._read(f"to list the files of {slug}", slug, self._file_page(slug, token))
            new = [RemoteFile(file.name, int(file.total_bytes)) for file in page.files if file.name not in files]
            files |= {file.name: file for file in new}
            token = page.next_page_token or ""
            if not token or not new:
                return list(files.values())

    def download(self, slug: str, folder: Path, track: Track = silent) -> Path:
        """Download the competition's archive to ``folder/SLUG.zip`` and compare its MD5 if the server sends one.

        Continues an earlier call that was interrupted, if the archive is still the same. Raises Corrupt if the
        MD5 differs; the archive is then deleted.
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
            raise KitError(
                f"a zip archive of {slug}", "Kaggle sent another kind of file",
                f"unpack what {folder} holds, put {', '.join(COMPETITION_FILES)} into data/, then call again",
            )  # fmt: skip
        self._compare_md5(path)
        return path

    def limits(self, slug: str) -> Limits:
        """The submissions left. All numbers are 0 if the user has no team yet."""
        get = self._client.competition_get_submission_limits
        limits = self._read(f"to read the submission limits of {slug}", slug, lambda: get(slug))
        return Limits(limits.num_today, limits.num_total, limits.num_allowed_now, limits.limited_by_total)

    def submit(self, slug: str, path: Path, text: str) -> int:
        """Upload a file and submit it once, with a description; the submission's ``ref``.

        Raises Refused if nothing was submitted, and Unanswered if that is unknown: then look for the text in
        ``submissions``.
        """
        action = f"to submit {path.name} to {slug}"
        result = self._guard.once(
            action, slug, lambda: self._client.competition_submit(str(path), text, slug, True)
        )
        if result.ref:
            return int(result.ref)
        message = self._guard.credentials.hide(result.message or "no message")
        if result.message == self._client.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:  # the client raises nothing
            raise Refused(
                action,
                f"the upload failed: {message} (ref 0); nothing was submitted",
                "the same command tries again",
            )
        raise Unanswered(
            action,
            f"Kaggle returns no submission (ref 0): {message}",
            "the same command looks for it on the server before it sends anything",
        )

    def submissions(self, slug: str) -> list[RemoteSubmission]:
        """All submissions of the user's team, newest first."""
        listed: dict[int, RemoteSubmission] = {}
        for number in itertools.count(1):
            page = self._read(f"to list the submissions to {slug}", slug, self._submission_page(slug, number))
            entries = [entry for entry in page or () if entry and entry.ref not in listed]
            new = {entry.ref: _submission(entry, self._guard.credentials.hide) for entry in entries}
            if not new:  # the client drops the token of the next page: an empty or repeated page is the end
                break
            listed |= new
        return sorted(listed.values(), key=lambda remote: (remote.submitted_at, remote.ref), reverse=True)

    def _watch(self, work: Work[None], path: Path, track: Track) -> None:
        """Wait for a download while bytes arrive, and show every MiB. Raises TimeoutError if none arrives."""
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
            actual = base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()
        if expected and actual != expected:
            path.unlink()
            raise Corrupt(
                f"{path.name} with the MD5 {expected} that Kaggle sent with it",
                f"{actual}: bytes were changed on the way",
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


def _submission(entry: Any, hide: Callable[[str], str]) -> RemoteSubmission:
    moment = entry.date or datetime.datetime.min  # the client's times are UTC, without a time zone
    return RemoteSubmission(
        ref=entry.ref,
        submitted_at=moment.replace(tzinfo=datetime.UTC),
        description=entry.description or "",
        status=entry.status.name.lower(),
        public_score=_score(entry.public_score),
        reason=hide(entry.error_description or ""),
    )


def _score(text: str | None) -> float | None:
    """A score from its text; None if it is pending ("") or no finite number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
