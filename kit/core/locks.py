"""Locks of the system, which end with their process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kit.core.files import _refused, make_folder, remove_partials


@contextlib.contextmanager
def locked(path: Path, seconds: float = -1) -> Iterator[None]:
    """Hold a lock of the system's, which ends with its process; the file stays, removing it would be a race.

    Waits for as long as it takes, or raises filelock's Timeout after ``seconds``. Raises KitError where the
    system refuses the file.
    """
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise _refused(path, error) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """Hold a folder of results, made where it is missing; what a killed process left half written goes first."""
    with locked(make_folder(folder) / ".lock"):
        remove_partials(folder)
        yield folder
