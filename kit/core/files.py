"""Writing so that a kill at any moment leaves the old file or the new one, never half of either.

Temporary files stand beside their goal (a rename across file systems is no rename) and begin with a dot.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kit.core.errors import KitError, reason

PARTIAL_SUFFIX = ".partial"
_HASH_BLOCK_BYTES = 1 << 20
_MIB, _GIB = 2**20, 2**30


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it is flushed to disk and renamed to ``path``.

    Raises KitError where the system refuses (disk full, read-only folder); ``path`` is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL_SUFFIX)
        os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        raise write_error(path, error, _size(partial)) from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def explaining_write_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses here (disk full, read-only folder) into a KitError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def make_folder(path: Path) -> Path:
    """The folder, made where it is missing. Raises KitError where the system refuses or a file is in its place."""
    with explaining_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, line ends as they are."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def require_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises KitError where the disk of a folder has less than that left; ``what`` says what for."""
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise KitError(
            f"{what}: {size_text(needed_bytes)}", f"{size_text(free)} free",
            "make room, or choose a folder on another disk with --workspace",
        )  # fmt: skip


def size_text(count: int) -> str:
    """A number of bytes as it is said: MiB below one GiB."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:.1f} MiB"


def remove_partials(folder: Path) -> None:
    """Delete what a killed process left half written anywhere in ``folder`` (call under its lock)."""
    for path in sorted(folder.rglob(f".*{PARTIAL_SUFFIX}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_error(path: Path, error: OSError, written_bytes: int = 0) -> KitError:
    """The KitError for a refusal of the system to write ``path``, with the space that is left there."""
    needed = f"it needs more than {written_bytes / 2**20:.1f} MiB, " if written_bytes else ""
    return KitError(
        f"to write {path}",
        f"{reason(error)} ({needed}{_free_space(path)})",
        "make room or choose another folder with --workspace; what was there before is unchanged",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _free_space(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.exists()), Path())
    return f"{size_text(shutil.disk_usage(folder).free)} free"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
