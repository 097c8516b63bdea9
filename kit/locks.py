"""Who may work on a run: one process per fold, one at a time where a run begins or ends.

The locks are the system's: they end with their process, however it ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from filelock import FileLock, Timeout

from kit.errors import KitError
from kit.files import make_folder
from kit.runs import Run


@contextlib.contextmanager
def holding(run: Run) -> Iterator[None]:
    """Hold a run, or one fold of it, for this process. Raises KitError where another process holds it."""
    make_folder(run.home)
    holder = run.home / ".holder"
    try:
        with FileLock(run.home / ".lock", timeout=0):
            holder.write_text(str(os.getpid()), encoding="utf-8")
            yield
    except Timeout as error:
        raise KitError(
            f"run {run.title!r} to be free",
            f"process {holder.read_text(encoding='utf-8')} is training it",
            "wait for it, or choose another --run NAME",
        ) from error


def turn(run: Run) -> FileLock:
    """Waits for its turn: held for the moments in which a run begins or ends, whoever trains its folds."""
    make_folder(run.folder)
    return FileLock(run.folder / ".turn")


def rank() -> int:
    """The number of this process among those of one training; 0 where there is one."""
    # Set by torchrun (RANK) and by Lightning's own launcher (LOCAL_RANK) in every process but the first.
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)
