"""What is known of the pushes of a run: the last one, and one whose answer nobody has seen.

``kernels/NAME.json`` is the last push that Kaggle has. Before anything is sent, ``kernels/.NAME.open`` says what is
about to be: after a kill or a lost answer the kernel's versions on Kaggle tell whether it arrived, since a script
carries its push's id. So the same command never starts a second session.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Iterator
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
_VERSIONS_BACK = 10  # others may have pushed, or saved on the site, since
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Push:
    """One push: its own id, the kernel OWNER/SLUG, Kaggle's number for it, the hash of what it goes on from.

    ``version`` is 0 and ``url`` empty while the answer has not been seen; ``at`` is when it began, Unix seconds.
    """

    id: str
    kernel: str
    version: int
    url: str
    preset: str
    config: dict[str, Any]
    continues_sha256: str = ""
    at: float = 0.0


def record_path(run: Run) -> Path:
    """Where the last push of a run is recorded."""
    return run.workspace / "kernels" / f"{run.name}.json"


def require_pushed(run: Run) -> None:
    """Raises KitError where nothing was ever sent for a run: that is known without asking Kaggle."""
    path = record_path(run)
    if not path.exists() and not _open_path(run).exists():
        known = [one.stem for one in path.parent.glob("*.json")]
        raise KitError(
            f"a run that was pushed from {run.workspace}", repr(run.name),
            f"nearest: {closest_names(run.name, known)}; `invoke kernel.push --run {run.name}` pushes it",
        )  # fmt: skip


def read_push(run: Run) -> Push:
    """The last push of a run that Kaggle has. Raises KitError where there is none."""
    require_pushed(run)
    path = record_path(run)
    return read_record(path, Push, f"delete {path} and push again")


def pushing(run: Run) -> contextlib.AbstractContextManager[None]:
    """Hold the pushes and pulls of a run for this process. Raises KitError if another process holds them."""
    folder = make_folder(run.workspace / "kernels")
    return exclusive(folder / f".{run.name}.lock", f"one push or pull of run {run.name} at a time")


def record_open(run: Run, push: Push) -> None:
    """Record what is about to be sent."""
    write_json(_open_path(run), asdict(push))


def record_arrived(run: Run, push: Push) -> Push:
    """Record that Kaggle has it, under its number."""
    write_json(record_path(run), asdict(push))
    close(run, push)
    return push


def close(run: Run, push: Push) -> None:
    """No longer look for a push: Kaggle certainly did not take it, or it is recorded."""
    pending = _open_push(run)
    if pending is not None and pending.id == push.id:
        with explaining_write_errors(_open_path(run)):
            _open_path(run).unlink(missing_ok=True)


def find_push(kernels: Kernels, run: Run, push: Push) -> Push | None:
    """A push without an answer as Kaggle has it, recorded; None where no version of its kernel carries its id.

    Raises KitError where Kaggle shows nothing of a kernel of which an older version is on record.
    """
    before = read_push(run) if record_path(run).exists() else None
    oldest = before.version if before is not None and before.kernel == push.kernel else 0
    newest = kernels.version(push.kernel)
    if newest is None and oldest:
        raise KitError(
            f"the kernel {push.kernel} on Kaggle", f"none that this account sees; version {oldest} is on record",
            f"log in as its owner; if it was deleted there, delete {_open_path(run)}",
        )  # fmt: skip
    for version in _versions(kernels, push.kernel, newest, oldest):
        if f'"id": "{push.id}"' in version.source:
            url = f"https://www.kaggle.com/code/{push.kernel}"
            return record_arrived(run, replace(push, version=version.number, url=url))
    return None


def settle(kernels: Kernels, run: Run, knobs: KaggleConfig) -> Push | None:
    """Find out what became of a push whose answer nobody saw; None where there is none, or it never arrived.

    It is looked for until ``deadline_seconds`` + ``settle_seconds`` (its own, if they were longer) after its start:
    so long it may be under way. Call under `pushing`.
    """
    push = _open_push(run)
    if push is None:
        return None
    if record_path(run).exists() and read_push(run).id == push.id:  # killed in between
        close(run, push)
        return read_push(run)
    log.info("the answer to the last push was not seen; looking for it on Kaggle")
    deadline = time.monotonic() + _window(push, knobs) - max(0.0, time.time() - push.at)
    while (found := find_push(kernels, run, push)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            log.warning("the last push of run %s did not arrive", run.name)
            close(run, push)
            return None
        time.sleep(min(left, knobs.score_pause_seconds))
    return found


def last_push(kernels: Kernels, run: Run) -> Push:
    """The last push of a run that Kaggle has, one whose answer was not seen included. Raises KitError if none.

    Never decides that a push did not arrive: another process may just be sending it.
    """
    push = _open_push(run)
    if push is not None:
        found = find_push(kernels, run, push)
        if found is not None:
            return found
        log.warning(
            "the last push of run %s is not on Kaggle, or not yet; the same kernel.push settles it", run.name
        )
    return read_push(run)


def _versions(kernels: Kernels, kernel: str, newest: Version | None, oldest: int) -> Iterator[Version]:
    """What Kaggle calls the newest version, any after it, and those before it that are newer than ``oldest``."""
    if newest is None:
        return
    yield newest
    number = newest.number
    while (later := kernels.version(kernel, number + 1)) is not None:
        yield later
        number += 1
    for earlier in range(newest.number - 1, max(oldest, newest.number - _VERSIONS_BACK), -1):
        found = kernels.version(kernel, earlier)
        if found is not None:
            yield found


def _window(push: Push, knobs: KaggleConfig) -> float:
    own = push.config.get("kaggle", {})
    names = ("deadline_seconds", "settle_seconds")
    return max(sum(getattr(knobs, name) for name in names), sum(float(own.get(name, 0)) for name in names))


def _open_push(run: Run) -> Push | None:
    path = _open_path(run)
    if not path.exists():
        return None
    return read_record(path, Push, f"look at https://www.kaggle.com/code for it, then delete {path}")


def slug_of(name: str) -> str:
    """A run's name as Kaggle takes it; where letters are lost, digits of its hash keep it apart from others."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if slug == name and len(slug) <= _SLUG_LETTERS:
        return slug
    digits = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{slug[: _SLUG_LETTERS - _HASH_DIGITS - 1].strip('-')}-{digits}".strip("-")


def _open_path(run: Run) -> Path:
    return run.workspace / "kernels" / f".{run.name}.open"
