"""What is known of the pushes of a run: the last one, and one whose answer nobody has seen.

``kernels/NAME.json`` is the last push that Kaggle has. Before anything is sent, ``kernels/.NAME.open`` says what is
about to be: after a kill or a lost answer Kaggle's newest version of the kernel tells whether it arrived, since the
script carries the push's id. So the same command never starts a second session.
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

from filelock import Timeout

from kit.config import KaggleConfig
from kit.errors import KitError, nearest
from kit.files import locked, make_folder, write_json, writing
from kit.kaggle_kernels import Kernels
from kit.records import read_record
from kit.runs import Run

_SLUG_LETTERS, _HASH_DIGITS = 40, 6  # Kaggle takes titles of 50 letters
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
            f"nearest: {nearest(run.name, known)}; `invoke kernel.push --run {run.name}` pushes it",
        )  # fmt: skip


def read_push(run: Run) -> Push:
    """The last push of a run that Kaggle has. Raises KitError where there is none."""
    require_pushed(run)
    path = record_path(run)
    return read_record(path, Push, f"delete {path} and push again")


@contextlib.contextmanager
def pushing(run: Run) -> Iterator[None]:
    """Hold the pushes of a run for this process. Raises KitError where another one is at work."""
    folder = make_folder(run.workspace / "kernels")
    try:
        with locked(folder / f".{run.name}.lock", seconds=0):
            yield
    except Timeout as error:
        raise KitError(
            f"one push of run {run.name} at a time", "another is at work", "wait for it to end"
        ) from error


def begin(run: Run, push: Push) -> None:
    """Record what is about to be sent."""
    write_json(_open_path(run), asdict(push))


def arrived(run: Run, push: Push) -> Push:
    """Record that Kaggle has it, under its number."""
    write_json(record_path(run), asdict(push))
    refused(run)
    return push


def refused(run: Run) -> None:
    """Forget what was about to be sent: Kaggle certainly did not take it, or it is recorded."""
    path = _open_path(run)
    with writing(path):
        path.unlink(missing_ok=True)


def look(wire: Kernels, run: Run, push: Push) -> Push | None:
    """A push without an answer as Kaggle has it, recorded; None where its newest version is another."""
    newest = wire.newest(push.kernel)
    if newest is None or f'"id": "{push.id}"' not in newest.source:
        return None
    return arrived(run, replace(push, version=newest.version, url=f"https://www.kaggle.com/code/{push.kernel}"))


def settle(wire: Kernels, run: Run, knobs: KaggleConfig) -> Push | None:
    """Find out what became of a push whose answer nobody saw; None where there is none, or it never arrived.

    It is looked for until ``deadline_seconds`` + ``settle_seconds`` after its start: so long it may be under way.
    """
    path = _open_path(run)
    if not path.exists():
        return None
    push = read_record(path, Push, f"look at https://www.kaggle.com/code for it, then delete {path}")
    log.info("the answer to the last push was not seen; looking for it on Kaggle")
    left = knobs.deadline_seconds + knobs.settle_seconds - max(0.0, time.time() - push.at)
    deadline = time.monotonic() + left
    while (found := look(wire, run, push)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            log.warning("the last push of run %s did not arrive", run.name)
            refused(run)
            return None
        time.sleep(min(left, knobs.score_pause_seconds))
    return found


def last_push(wire: Kernels, run: Run, knobs: KaggleConfig) -> Push:
    """The last push of a run that Kaggle has. Raises KitError where there was none."""
    return settle(wire, run, knobs) or read_push(run)


def slug_of(name: str) -> str:
    """A run's name as Kaggle takes it; where letters are lost, digits of its hash keep it apart from others."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if slug == name and len(slug) <= _SLUG_LETTERS:
        return slug
    digits = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{slug[: _SLUG_LETTERS - _HASH_DIGITS - 1].strip('-')}-{digits}".strip("-")


def _open_path(run: Run) -> Path:
    return run.workspace / "kernels" / f".{run.name}.open"
