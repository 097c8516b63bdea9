"""Locks of a run: one process trains a fold, one at a time starts or finishes the run, one uses its results.

The locks are the system's: they end with their process, however it ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from kit.core.errors import KitError
from kit.core.files import make_folder, remove_partials
from kit.core.locks import exclusive, locked
from kit.runs.folder import Run


def training_lock(run: Run) -> contextlib.AbstractContextManager[None]:
    """Lock the training of a run, or of one fold of it. Raises KitError if another process is training it."""
    return exclusive(
        make_folder(run.home) / ".lock", f"no other training of run {run.title!r}",
        "wait for it to end, or choose another --run NAME",
    )  # fmt: skip


def starting_or_finishing(run: Run) -> contextlib.AbstractContextManager[None]:
    """Wait for the lock under which a run is started or finished, whichever of its folds this process trains."""
    return locked(make_folder(run.folder) / ".turn")


@contextlib.contextmanager
def using_results(run: Run) -> Iterator[None]:
    """Wait until no other process uses the results of a finished run, and lock them.

    Half-written files of a killed process are removed: no other process can be writing them.
    """
    with locked(run.folder / ".work"):
        if run.finished.exists():
            remove_partials(run.folder)
        yield


def rank() -> int:
    """The number of this process among those of one training; 0 if there is only one."""
    # Set by torchrun (RANK) and by Lightning's own launcher (LOCAL_RANK) in every process but the first.
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def require_launcher(processes: int) -> None:
    """Raise KitError if the environment numbers this process, but no launcher did: the first one would never come.

    To be called before a training of ``processes`` processes: Lightning clears WORLD_SIZE when one has ended.
    """
    name = "RANK" if os.environ.get("RANK") else "LOCAL_RANK"
    number, size = (os.environ.get(variable, "") for variable in (name, "WORLD_SIZE"))
    if not number or (number == "0" and processes == 1):
        return
    launched = number.isdecimal() and size.isdecimal() and int(number) < int(size) and os.environ.get("MASTER_ADDR")
    if not launched:
        raise KitError(
            f"{name} in the environment to be set by a launcher, with WORLD_SIZE and MASTER_ADDR",
            f"{name}={number!r}, WORLD_SIZE={size!r}, MASTER_ADDR={os.environ.get('MASTER_ADDR', '')!r}",
            "`env -u RANK -u LOCAL_RANK invoke train ...` trains in one process; "
            "`torchrun --nproc-per-node 2 -m -- invoke train ... --set trainer.devices=2` starts two",
        )
