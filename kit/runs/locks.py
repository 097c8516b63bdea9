"""Who may work on a run: one process per fold, one at a time where a run begins or ends.

The locks are the system's: they end with their process, however it ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from kit.core.files import make_folder, remove_partials
from kit.core.locks import exclusive, locked
from kit.runs.folder import Run


def holding(run: Run) -> contextlib.AbstractContextManager[None]:
    """Hold a run, or one fold of it, for this process. Raises KitError where another process holds it."""
    return exclusive(
        make_folder(run.home) / ".lock", f"no other training of run {run.title!r}",
        "wait for it to end, or choose another --run NAME",
    )  # fmt: skip


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


def rank() -> int:
    """The number of this process among those of one training; 0 where there is one."""
    # Set by torchrun (RANK) and by Lightning's own launcher (LOCAL_RANK) in every process but the first.
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)
