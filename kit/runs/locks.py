"""Who may work on a run: one process per fold, one at a time where a run begins or ends.

The locks are the system's: they end with their process, however it ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from filelock import Timeout

from kit.core.errors import KitError
from kit.core.files import make_folder, remove_partials, write_text
from kit.core.locks import locked
from kit.runs.folder import Run


@contextlib.contextmanager
def holding(run: Run) -> Iterator[None]:
    """Hold a run, or one fold of it, for this process. Raises KitError where another process holds it."""
    make_folder(run.home)
    try:
        with locked(run.home / ".lock", seconds=0):
            write_text(run.home / ".holder", str(os.getpid()))
            yield
    except Timeout as error:
        raise KitError(
            f"run {run.title!r} to be free", f"{_holder(run)} is training it",
            "wait for it, or choose another --run NAME",
        ) from error  # fmt: skip


def turn(run: Run) -> contextlib.AbstractContextManager[None]:
    """Waits for its turn: held for the moments in which a run begins or ends, whoever trains its folds."""
    return locked(make_folder(run.folder) / ".turn")


@contextlib.contextmanager
def working(run: Run) -> Iterator[None]:
    """Wait until no other process works on the results of a finished run, and hold them.

    What a killed one left half written is removed: nobody else can be writing it.
    """
    with locked(run.folder / ".work"):
        if run.finished.exists():
            remove_partials(run.folder)
        yield


def _holder(run: Run) -> str:
    with contextlib.suppress(OSError):  # it has the lock, and may not have written its name yet
        return f"process {(run.home / '.holder').read_text(encoding='utf-8')}"
    return "another process"


def rank() -> int:
    """The number of this process among those of one training; 0 where there is one."""
    # Set by torchrun (RANK) and by Lightning's own launcher (LOCAL_RANK) in every process but the first.
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)
