"""File locks of the operating system: they end with their process, also if it is killed."""

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
    """Hold the lock of a file. The file stays afterwards: removing it would be a race.

    Waits without end, or for ``seconds`` and then raises filelock's Timeout. Raises KitError if the system
    refuses the file.
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
    """Hold a lock without waiting, and write this process's number beside it (``.x.lock`` -> ``.x.holder``).

    Raises KitError with ``expected``, ``do`` and the other process's number if another process holds the lock.
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
        with contextlib.suppress(OSError, ValueError):  # it may not have written its number yet
            process = f"process {int(holder.read_bytes())}"
        raise KitError(expected, f"{process} is at work", do) from error


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """Make a folder of results if it is missing, lock it, and delete the temporary files of killed processes."""
    with locked(make_folder(folder) / ".lock"):
        remove_partials(folder)
        yield folder
