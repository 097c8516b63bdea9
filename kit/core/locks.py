"""Locks of the system, which end with their process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from kit.core.errors import KitError
from kit.core.files import make_folder, remove_partials, write_error, write_text


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
        raise write_error(path, error) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def exclusive(path: Path, expected: str, do: str = "wait for it to end") -> Iterator[None]:
    """Hold a lock at once, and note this process's number beside it (``.x.lock`` -> ``.x.holder``).

    Raises KitError of ``expected`` and ``do``, with the number of the process that holds it, if another one does.
    """
    holder = path.with_name(f"{path.name.removesuffix('lock')}holder")
    try:
        with locked(path, seconds=0):
            try:
                write_text(holder, str(os.getpid()))
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout as error:
        process = "another process"
        with contextlib.suppress(OSError):  # it has the lock, and may not have written its number yet
            process = f"process {holder.read_text(encoding='utf-8')}"
        raise KitError(expected, f"{process} is at work", do) from error


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[Path]:
    """Hold a folder of results, made where it is missing; what a killed process left half written goes first."""
    with locked(make_folder(folder) / ".lock"):
        remove_partials(folder)
        yield folder
