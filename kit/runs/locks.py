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

_BY_A_LAUNCHER = ("RANK", "LOCAL_RANK")
_BY_A_SCHEDULER = {  # the numbers of a job's tasks; only kit's own launchers are used, so no other may be above 0
    "SLURM_PROCID": "srun",
    "JSM_NAMESPACE_RANK": "jsrun",
    "OMPI_COMM_WORLD_RANK": "mpirun",
    "PMI_RANK": "mpiexec",
}


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

    To be called before a training of ``processes`` processes and before Lightning is imported: it reads these
    numbers then, and clears WORLD_SIZE when a training has ended. A variable without a value counts as absent.
    """
    for variable in (*_BY_A_LAUNCHER, *_BY_A_SCHEDULER):
        if os.environ.get(variable) == "":
            del os.environ[variable]  # Lightning would read a number
    name = next((name for name in _BY_A_LAUNCHER if name in os.environ), None)
    if name is None:
        _require_first_task()
        return
    number, size = (os.environ.get(each, "") for each in (name, "WORLD_SIZE"))
    if number == "0" and processes == 1:
        return
    launched = number.isdecimal() and size.isdecimal() and int(number) < int(size) and os.environ.get("MASTER_ADDR")
    if not launched:
        raise KitError(
            f"{name} in the environment to be set by a launcher, with WORLD_SIZE and MASTER_ADDR",
            f"{name}={number!r}, WORLD_SIZE={size!r}, MASTER_ADDR={os.environ.get('MASTER_ADDR', '')!r}",
            "`env -u RANK -u LOCAL_RANK invoke train ...` trains in one process; "
            "`torchrun --nproc-per-node 2 -m -- invoke train ... --set trainer.devices=2` starts two",
        )


def _require_first_task() -> None:
    """Raise KitError in the second and further tasks of a scheduler's job: each would train the run by itself."""
    for name, launcher in _BY_A_SCHEDULER.items():
        number = os.environ.get(name, "0")
        if not (number.isascii() and number.isdecimal() and int(number) == 0):
            raise KitError(
                "one `invoke train` for a run: it starts further processes itself, or torchrun does on every node",
                f"{name}={number!r}, a further task of {launcher}",
                f"`env -u {name} invoke train ...` trains in one process; in a job with `--ntasks-per-node 1` "
                "torchrun starts the processes of each machine: docs/training.md",
            )  # fmt: skip
