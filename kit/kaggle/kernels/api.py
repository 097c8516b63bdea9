"""Kernels on Kaggle: push a script, see what became of its session, bring its output, upload a run to go on from.

The client reports a refused push as a success with texts in it; here it is an error.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kit.config import KaggleConfig
from kit.kaggle.client import Connection, log_in
from kit.kaggle.errors import Refused, Unanswered, answer_of
from kit.kaggle.timeouts import Work, wait_while_growing

T = TypeVar("T")
_SLOWEST_BYTES_PER_SECOND = 100_000  # an upload slower than this is given up
_READY, _READY_LOOKS = "ready", 60
_STATES = {"NEW_SCRIPT": "queued", "CANCEL_REQUESTED": "running", "CANCEL_ACKNOWLEDGED": "cancelled"}
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Session:
    """One version's session: queued, running, complete, error or cancelled; its log as plain text."""

    status: str
    failure: str
    log: str


@dataclass(frozen=True)
class Version:
    """One version of a kernel: its number, and the script as it was pushed."""

    number: int
    source: str


@dataclass(frozen=True)
class Pushed:
    """What Kaggle made of a push: the kernel OWNER/SLUG, the version that runs, what it could not mount."""

    kernel: str
    version: int
    url: str
    unmounted: tuple[str, ...] = ()


def connect_kernels(settings: KaggleConfig) -> Kernels:
    """Log in. Raises KitError where that fails."""
    return Kernels(log_in(settings))


class Kernels:
    """A connection; ``connect_kernels`` makes one. A kernel is named OWNER/SLUG."""

    def __init__(self, connection: Connection) -> None:
        self.username = connection.username
        self._client, self._guard = connection.client, connection.guard

    def gpu_hours(self) -> float | None:
        """The GPU hours that are left this week; None where Kaggle does not say."""
        quota = self._read("to read the GPU hours left", self._client.quota_view).gpu_quota
        if quota is None or quota.total_time_allowed is None:
            return None
        used = 0.0 if quota.time_used is None else quota.time_used.total_seconds()
        return float(max(0.0, quota.total_time_allowed.total_seconds() - used) / 3600)

    def push(self, folder: Path, kernel: str) -> Pushed:
        """Push the script and metadata of a folder as OWNER/SLUG, which starts its session.

        Raises Refused where Kaggle took nothing, Unanswered where nobody knows.
        """
        action = f"to push {folder.name}"
        made = self._guard.once(action, "", lambda: self._client.kernels_push(str(folder)))
        if made.error:
            raise Refused(action, f"Kaggle refused: {self._hidden(made.error)}", "do what Kaggle says, then again")
        unmounted = (*made.invalid_competition_sources, *made.invalid_dataset_sources)
        if not made.version_number:
            if unmounted:
                raise not_mounted(unmounted, "nothing was pushed")
            raise Unanswered(
                action, "Kaggle names no version", f"look at https://www.kaggle.com/code/{self.username}"
            )
        url = str(made.url)
        named = re.search(r"/code/([^/?]+/[^/?]+)", url)  # Kaggle has the last word on the slug
        return Pushed(named[1] if named else kernel, int(made.version_number), url, unmounted)

    def session(self, kernel: str, version: int) -> Session | None:
        """What became of one version's session, with its log so far; None where Kaggle shows no such thing."""
        name = f"{kernel}/{version}"
        state = self._read(f"to see {name}", lambda: _if_there(lambda: self._client.kernels_status(name)))
        if state is None:
            return None
        text = self._read(f"to read the log of {name}", lambda: self._client.kernels_logs(name))
        return Session(
            _STATES.get(state.status.name, state.status.name.lower()),
            self._hidden(state.failure_message or ""),
            self._hidden(_plain_log(text)),
        )

    def version(self, kernel: str, number: int | None = None) -> Version | None:
        """A version of a kernel, the newest without a number; None where there is no such thing."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

        request = ApiGetKernelRequest()
        request.user_name, request.kernel_slug = kernel.split("/")
        if number is not None:
            request.version_label = f"v{number}"

        def ask() -> Version:
            with self._client.build_kaggle_client() as kaggle:
                found = kaggle.kernels.kernels_api_client.get_kernel(request)
            return Version(number or found.metadata.current_version_number, found.blob.source)

        found = self._read(f"to look for the kernel {kernel}", lambda: _if_there(ask))
        return found if found is not None and found.number else None

    def output(self, kernel: str, version: int, folder: Path) -> None:
        """Bring every file of a version's output into a folder; what is there whole is not fetched again."""
        name = f"{kernel}/{version}"

        def wait(work: Work[Any]) -> None:
            wait_while_growing(work, lambda: _bytes(folder), self._guard.settings.stall_seconds)
            work.result()

        def fetch() -> None:
            self._client.kernels_output(name, str(folder), quiet=True)

        self._guard.read(f"to bring the output of {name}", "", fetch, wait)

    def save_dataset(self, folder: Path, ref: str, notes: str) -> None:
        """Upload a folder as a private data set OWNER/SLUG or as its next version, and wait until it is ready."""
        action = f"to upload the data set {ref}"
        exists = self._dataset_status(ref) is not None
        create: Callable[[], Any] = lambda: self._client.dataset_create_new(str(folder), public=False, quiet=True)  # noqa: E731
        if exists:
            create = lambda: self._client.dataset_create_version(str(folder), notes, quiet=True)  # noqa: E731
        made = self._guard.once(action, "", create, _bytes(folder) / _SLOWEST_BYTES_PER_SECOND)
        if made.error or (made.status or "").lower() == "error":
            raise Refused(
                action, f"Kaggle refused: {self._hidden(made.error or 'no reason')}", "the same command again"
            )
        for _ in range(_READY_LOOKS):
            if self._dataset_status(ref) == _READY:
                return
            time.sleep(self._guard.settings.pause_seconds)
        raise Unanswered(action, "Kaggle is still working on it", "wait a little, then the same command")

    def _dataset_status(self, ref: str) -> str | None:
        """None where there is no such data set."""
        ask = lambda: str(self._client.dataset_status(ref))  # noqa: E731
        return self._read(f"to look for the data set {ref}", lambda: _if_there(ask))

    def _read(self, action: str, call: Callable[[], T]) -> T:
        return self._guard.read(action, "", call)

    def _hidden(self, text: str) -> str:
        return self._guard.credentials.hide(text)


def _if_there(ask: Callable[[], T]) -> T | None:
    """What is asked for; None where Kaggle says that there is no such thing, or none that this account may see."""
    try:
        return ask()
    except (OSError, ValueError) as error:
        answer = answer_of(error)
        if answer is not None and answer.status in (403, 404):
            return None
        raise


def not_mounted(names: Sequence[str], then: str) -> Refused:
    """The error for data sets (OWNER/SLUG) and competitions (SLUG) that Kaggle does not mount."""
    slugs = [name for name in names if "/" not in name]
    do = "wait until the data set is ready on Kaggle, then the same command"
    if slugs:
        do = f"join at https://www.kaggle.com/competitions/{slugs[0]}/rules, or --set competition.slug=SLUG"
    return Refused("a push with its data", f"Kaggle mounts no {', '.join(names)} for this account; {then}", do)


def _plain_log(text: str) -> str:
    """Kaggle keeps a log as a JSON list of pieces of text."""
    try:
        pieces = json.loads(text)
        return "".join(piece["data"] for piece in pieces)
    except (ValueError, TypeError, KeyError):
        return text


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
