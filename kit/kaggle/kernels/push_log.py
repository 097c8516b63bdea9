"""The recorded pushes of a run: the last one that Kaggle has, and an open one, whose answer was not received.

``kernels/NAME.json`` is the last push. A push is first recorded in ``kernels/.NAME.open``; after a kill or a lost
answer it is looked for among the kernel's versions on Kaggle, whose scripts carry their push's id. So the same
command never starts a second session.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kit.config import KaggleConfig
from kit.core.errors import KitError, closest_names
from kit.core.files import explaining_write_errors, make_folder
from kit.core.json_files import read_record, write_json
from kit.core.locks import exclusive
from kit.kaggle.kernels.api import Kernels, Version
from kit.runs.folder import Run

_SLUG_LETTERS, _HASH_DIGITS = 40, 6  # Kaggle takes titles of 50 letters
_WAITS = ("deadline_seconds", "settle_seconds")  # how long a push may be under way
_VERSIONS_BACK = 10  # newer versions may have been pushed from elsewhere, or saved on the site
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Push:
    """A push: its own id, the kernel OWNER/SLUG, its version there, and the state that the training continues from.

    ``version`` is 0 and ``url`` empty until Kaggle has answered; ``at`` is the start in Unix seconds. The last two
    SHA-256 are those of a file of weights and of groups.csv that were sent along; faults of the audit to ``allow``
    do not stop the training.
    """

    id: str
    kernel: str
    version: int
    url: str
    preset: str
    config: Mapping[str, Mapping[str, Any]]
    continues_sha256: str = ""
    at: float = 0.0
    weights_sha256: str = ""
    allow: tuple[str, ...] = ()
    groups_sha256: str = ""

    def __post_init__(self) -> None:
        waits = [self.config.get("kaggle", {}).get(name, 0) for name in _WAITS]
        if not all(isinstance(seconds, (int, float)) and seconds >= 0 for seconds in waits):
            raise ValueError(f"a push waits for some seconds ({', '.join(_WAITS)}), not {waits}")


def record_path(run: Run) -> Path:
    """The path of the record of a run's last push."""
    return run.workspace / "kernels" / f"{run.name}.json"


def require_pushed(run: Run) -> None:
    """Raise KitError if no push of a run is recorded; does not connect to Kaggle."""
    path = record_path(run)
    if not path.exists() and not _open_path(run).exists():
        known = [record.stem for record in path.parent.glob("*.json")]
        raise KitError(
            f"a run that was pushed from {run.workspace}", repr(run.name),
            f"nearest: {closest_names(run.name, known)}; `invoke kernel.push --run {run.name}` pushes it",
        )  # fmt: skip


def read_push(run: Run) -> Push:
    """The record of the last push of a run that Kaggle has. Raises KitError if there is none."""
    require_pushed(run)
    path = record_path(run)
    return read_record(path, Push, f"delete {path} and push again")


def pushing(run: Run) -> contextlib.AbstractContextManager[None]:
    """Hold the pushes and pulls of a run for this process. Raises KitError if another process holds them."""
    folder = make_folder(run.workspace / "kernels")
    return exclusive(folder / f".{run.name}.lock", f"one push or pull of run {run.name} at a time")


def record_open(run: Run, push: Push) -> None:
    """Record a push that is about to be sent."""
    write_json(_open_path(run), asdict(push))


def record_arrived(run: Run, push: Push) -> Push:
    """Record that Kaggle has a push, with its version; the same push."""
    write_json(record_path(run), asdict(push))
    close(run, push)
    return push


def close(run: Run, push: Push) -> None:
    """Delete the open record of a push, which has arrived or was refused; another push's record stays."""
    opened = _open_push(run)
    if opened is not None and opened.id == push.id:
        with explaining_write_errors(_open_path(run)):
            _open_path(run).unlink(missing_ok=True)


def find_push(kernels: Kernels, run: Run, push: Push) -> Push | None:
    """Look for an open push on Kaggle and record it; None if no version of its kernel carries its id.

    Raises KitError if Kaggle shows no version of a kernel of which an older version is on record.
    """
    last = read_push(run) if record_path(run).exists() else None
    oldest = last.version if last is not None and last.kernel == push.kernel else 0
    newest = kernels.version(push.kernel)
    if newest is None and oldest:
        raise KitError(
            f"the kernel {push.kernel} on Kaggle", f"none that this account may see; version {oldest} is on record",
            f"log in as its owner; if it was deleted there, delete {_open_path(run)}",
        )  # fmt: skip
    for version in _versions(kernels, push.kernel, newest, oldest):
        if f'"id": "{push.id}"' in version.source:
            url = f"https://www.kaggle.com/code/{push.kernel}"
            return record_arrived(run, replace(push, version=version.number, url=url))
    return None


def settle(kernels: Kernels, run: Run, knobs: KaggleConfig) -> Push | None:
    """Find out whether the open push of a run arrived; it as recorded, None if there is none or it did not arrive.

    A request may be under way for ``deadline_seconds`` + ``settle_seconds`` after its start (the push's own knobs,
    if these are longer): so long the push is looked for. Call under `pushing`.
    """
    push = _open_push(run)
    if push is None:
        return None
    if record_path(run).exists() and read_push(run).id == push.id:  # a kill between the record and `close`
        close(run, push)
        return read_push(run)
    log.info("the last push was not answered; looking for it on Kaggle")
    deadline = time.monotonic() + _window(push, knobs) - max(0.0, time.time() - push.at)
    while (arrived := find_push(kernels, run, push)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            log.warning("the last push of run %s did not arrive", run.name)
            close(run, push)
            return None
        time.sleep(min(left, knobs.score_pause_seconds))
    return arrived


def last_push(kernels: Kernels, run: Run) -> Push:
    """The last push of a run that Kaggle has, the open one if it arrived. Raises KitError if there is none.

    Never closes an open push that is not found: another process may be sending it.
    """
    push = _open_push(run)
    if push is not None:
        arrived = find_push(kernels, run, push)
        if arrived is not None:
            return arrived
        log.warning(
            "the last push of run %s is not on Kaggle, or not yet; repeat its `invoke kernel.push` to settle it",
            run.name,
        )
    return read_push(run)


def _versions(kernels: Kernels, kernel: str, newest: Version | None, oldest: int) -> Iterator[Version]:
    """The versions newer than ``oldest``: what Kaggle calls the newest, any after it, then those before it."""
    if newest is None:
        return
    yield newest
    number = newest.number
    while (later := kernels.version(kernel, number + 1)) is not None:
        yield later
        number += 1
    for earlier in range(newest.number - 1, max(oldest, newest.number - _VERSIONS_BACK), -1):
        version = kernels.version(kernel, earlier)
        if version is not None:
            yield version


def _window(push: Push, knobs: KaggleConfig) -> float:
    """How many seconds after its start a push may still arrive."""
    own = push.config.get("kaggle", {})
    return max(sum(getattr(knobs, name) for name in _WAITS), sum(float(own.get(name, 0)) for name in _WAITS))


def _open_push(run: Run) -> Push | None:
    path = _open_path(run)
    if not path.exists():
        return None
    return read_record(path, Push, f"look for it at https://www.kaggle.com/code, then delete {path}")


def slug_of(name: str) -> str:
    """A run's name as a Kaggle slug; if characters are lost, digits of its hash keep it distinct."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if slug == name and len(slug) <= _SLUG_LETTERS:
        return slug
    digits = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{slug[: _SLUG_LETTERS - _HASH_DIGITS - 1].strip('-')}-{digits}".strip("-")


def _open_path(run: Run) -> Path:
    return run.workspace / "kernels" / f".{run.name}.open"
