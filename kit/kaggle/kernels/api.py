"""Kernels on Kaggle: push a script, read its session, download its output, upload a run to continue from.

Kaggle's client returns a refused push as a result with an error text; here it raises.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kit.config import KaggleConfig
from kit.kaggle.advice import FOLLOW, advice
from kit.kaggle.client import Connection, log_in
from kit.kaggle.errors import Refused, Unanswered, answer_of
from kit.kaggle.timeouts import Work, wait_while_growing

T = TypeVar("T")
_SLOWEST_BYTES_PER_SECOND = 100_000  # a slower upload times out
_STATES = {"NEW_SCRIPT": "queued", "CANCEL_REQUESTED": "running", "CANCEL_ACKNOWLEDGED": "cancelled"}
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Session:
    """A version's session: its status (queued, running, complete, error or cancelled), failure message and log."""

    status: str
    failure: str
    log: str


@dataclass(frozen=True)
class Version:
    """A version of a kernel: its number and the pushed script."""

    number: int
    source: str


@dataclass(frozen=True)
class Pushed:
    """The result of a push: the kernel OWNER/SLUG, its new version, the data that Kaggle could not mount."""

    kernel: str
    version: int
    url: str
    unmounted: tuple[str, ...] = ()


def connect_kernels(settings: KaggleConfig) -> Kernels:
    """Log in to Kaggle. Raises KitError if there are no credentials or Kaggle refuses them."""
    return Kernels(log_in(settings))


class Kernels:
    """A connection to Kaggle's kernels, made by ``connect_kernels``. A kernel is named OWNER/SLUG."""

    def __init__(self, connection: Connection) -> None:
        self.username = connection.username
        self._client, self._guard = connection.client, connection.guard

    def gpu_hours(self) -> float | None:
        """The GPU hours left this week; None if Kaggle does not report them."""
        quota = self._read("to read the GPU hours left", self._client.quota_view).gpu_quota
        if quota is None or quota.total_time_allowed is None:
            return None
        used = 0.0 if quota.time_used is None else quota.time_used.total_seconds()
        return float(max(0.0, quota.total_time_allowed.total_seconds() - used) / 3600)

    def push(self, folder: Path, kernel: str) -> Pushed:
        """Push the script and metadata of a folder as OWNER/SLUG, which starts a session.

        Raises Refused if Kaggle did not take it, Unanswered if that is unknown.
        """
        action = f"to push {folder.name}"
        result = self._guard.once(action, "", lambda: self._client.kernels_push(str(folder)))
        if result.error:
            raise Refused(
                action, f"Kaggle refused: {self._hidden(result.error)}", advice(result.error, "") or FOLLOW,
            )  # fmt: skip
        unmounted = (*result.invalid_competition_sources, *result.invalid_dataset_sources)
        if not result.version_number:
            if unmounted:
                raise not_mounted(unmounted, "nothing was pushed")
            raise Unanswered(
                action, "Kaggle returns no version", f"look at https://www.kaggle.com/code/{self.username}"
            )
        url = str(result.url)
        name = re.search(r"/code/([^/?]+/[^/?]+)", url)  # Kaggle may change the slug
        return Pushed(name[1] if name else kernel, int(result.version_number), url, unmounted)

    def session(self, kernel: str, version: int) -> Session | None:
        """A version's session, with its log so far; None if there is none that this account may see."""
        name = f"{kernel}/{version}"
        state = self._read(
            f"to read the status of {name}", lambda: _if_present(lambda: self._client.kernels_status(name))
        )
        if state is None:
            return None
        log = lambda: _if_present(lambda: self._client.kernels_logs(name))  # noqa: E731
        text = self._read(f"to read the log of {name}", log) or ""  # a session that waits has none
        return Session(
            _STATES.get(state.status.name, state.status.name.lower()),
            self._hidden(state.failure_message or ""),
            self._hidden(_plain_log(text)),
        )

    def version(self, kernel: str, number: int | None = None) -> Version | None:
        """A version of a kernel, without a number the newest; None if there is none that this account may see."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

        request = ApiGetKernelRequest()
        request.user_name, request.kernel_slug = kernel.split("/")
        if number is not None:
            request.version_label = f"v{number}"

        def get() -> Version:
            with self._client.build_kaggle_client() as kaggle:
                response = kaggle.kernels.kernels_api_client.get_kernel(request)
            return Version(number or response.metadata.current_version_number, response.blob.source)

        version = self._read(f"to read the kernel {kernel}", lambda: _if_present(get))
        return version if version is not None and version.number else None

    def output(self, kernel: str, version: int, folder: Path) -> None:
        """Download a version's output into a folder, without the files that are there already and whole."""
        name = f"{kernel}/{version}"

        def wait(work: Work[Any]) -> None:
            wait_while_growing(work, lambda: _bytes(folder), self._guard.settings.stall_seconds)
            work.result()

        def fetch() -> None:
            self._client.kernels_output(name, str(folder), quiet=True)

        self._guard.read(f"to download the output of {name}", "", fetch, wait)

    def save_dataset(self, folder: Path, ref: str, notes: str, is_new: bool) -> None:
        """Upload a folder as the private data set OWNER/SLUG, or as the next version of one that exists.

        Raises Refused if Kaggle did not take it, Unanswered if that is unknown.
        """
        action = f"to upload the data set {ref}"

        def save() -> Any:
            if is_new:
                return self._client.dataset_create_new(str(folder), public=False, quiet=True)
            return self._client.dataset_create_version(str(folder), notes, quiet=True)

        result = self._guard.once(action, "", save, _bytes(folder) / _SLOWEST_BYTES_PER_SECOND)
        if result.error or (result.status or "").lower() == "error":
            raise Refused(
                action,
                f"Kaggle refused: {self._hidden(result.error or 'no reason')}",
                advice(result.error or "", "") or FOLLOW,
            )

    def dataset_status(self, ref: str) -> str | None:
        """What Kaggle does with a data set, such as "ready" or "failed"; None if there is no such data set."""
        get = lambda: str(self._client.dataset_status(ref)).lower()  # noqa: E731
        return self._read(f"to read the status of the data set {ref}", lambda: _if_present(get))

    def dataset_version(self, ref: str) -> int:
        """The newest version of a data set: 0 if there is no data set, 1 if its version is not known."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        request = ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = ref.split("/")

        def get() -> int:
            with self._client.build_kaggle_client() as kaggle:
                return int(kaggle.datasets.dataset_api_client.get_dataset(request).current_version_number or 1)

        version = self._read(f"to read the version of the data set {ref}", lambda: _if_present(get))
        return version or int(self.dataset_status(ref) is not None)

    def _read(self, action: str, call: Callable[[], T]) -> T:
        return self._guard.read(action, "", call)

    def _hidden(self, text: str) -> str:
        return self._guard.credentials.hide(text)


def _if_present(get: Callable[[], T]) -> T | None:
    """What ``get`` returns; None if Kaggle answers that it does not exist or that this account may not see it."""
    try:
        return get()
    except (OSError, ValueError) as error:
        answer = answer_of(error)
        if answer is not None and answer.status in (403, 404):
            return None
        raise


def not_mounted(names: Sequence[str], consequence: str) -> Refused:
    """The error for data sets (OWNER/SLUG) and competitions (SLUG) that Kaggle does not mount."""
    slugs = [name for name in names if "/" not in name]
    do = "wait until the data set is ready on Kaggle, then repeat the command"
    if slugs:
        do = f"join at https://www.kaggle.com/competitions/{slugs[0]}/rules, or --set competition.slug=SLUG"
    return Refused(
        "a push with its data", f"Kaggle mounts no {', '.join(names)} for this account; {consequence}", do
    )


def _plain_log(text: str) -> str:
    """The text of a log, which Kaggle stores as a JSON list of pieces."""
    try:
        pieces = json.loads(text)
        return "".join(piece["data"] for piece in pieces)
    except (ValueError, TypeError, KeyError):
        return text


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
